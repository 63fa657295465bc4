"""`make up`'s last words: where things are, and where the password lies."""

from rich.console import Console

from . import backend
from .project import ENTRANCE, ENTRANCE_PORT, NEXT_STEP, port


def run(console: Console) -> None:
    rows = [
        ("Grafana", f"http://127.0.0.1:{port('GRAFANA_PORT')}", "user admin; password: see .env"),
        (ENTRANCE.capitalize(), f"http://127.0.0.1:{port(ENTRANCE_PORT)}",
         "its messages: /asyncapi"),
        ("Prometheus", f"http://127.0.0.1:{port('PROMETHEUS_PORT')}", ""),
        (backend.NAME, f"http://127.0.0.1:{port(backend.PORT_VARIABLE)}",
         "" if backend.PAGE else "API"),
        ("Loki", f"http://127.0.0.1:{port('LOKI_PORT')}", "API"),
        ("OTLP", f"http://127.0.0.1:{port('OTLP_GRPC_PORT')}",
         f"gRPC; HTTP on {port('OTLP_HTTP_PORT')}"),
        ("Kafka", f"127.0.0.1:{port('KAFKA_PORT')}", ""),
    ]  # fmt: skip
    width = max(len(name) for name, _, _ in rows)
    for name, url, note in rows:
        line = f"  {name:<{width}} {url:<32} {note}".rstrip()
        console.print(line, highlight=False, soft_wrap=True)
    console.print(f"\n{NEXT_STEP}", highlight=False)
