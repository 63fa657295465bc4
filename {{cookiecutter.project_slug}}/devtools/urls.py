"""`make up`'s last words: where things are, and where the password lies."""

from rich.console import Console

from .project import port


def run(console: Console) -> None:
    orders, grafana = f"http://127.0.0.1:{port('ORDERS_PORT')}", port("GRAFANA_PORT")
    rows = [
        ("Grafana", f"http://127.0.0.1:{grafana}", "user admin; password: see .env"),
        ("Orders", f"{orders}/orders", "POST; what it takes: /openapi.json"),
        ("Messages", f"{orders}/asyncapi", "of the orders service (AsyncAPI)"),
        ("Prometheus", f"http://127.0.0.1:{port('PROMETHEUS_PORT')}", ""),
        ("Tempo", f"http://127.0.0.1:{port('TEMPO_PORT')}", "API"),
        ("Loki", f"http://127.0.0.1:{port('LOKI_PORT')}", "API"),
        ("OTLP", f"http://127.0.0.1:{port('OTLP_GRPC_PORT')}",
         f"gRPC; HTTP on {port('OTLP_HTTP_PORT')}"),
        ("Kafka", f"127.0.0.1:{port('KAFKA_PORT')}", ""),
    ]  # fmt: skip
    for name, url, note in rows:
        console.print(f"  {name:<11} {url:<32} {note}".rstrip(), highlight=False, soft_wrap=True)
    console.print("\nPlace an order and see its trace: make order", highlight=False)
