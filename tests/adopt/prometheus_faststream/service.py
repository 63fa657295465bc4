from faststream import FastStream
from faststream.kafka import KafkaBroker
from faststream_otel import Telemetry
from faststream_otel.kafka import (
    KafkaPrometheusMiddleware,
    KafkaRetryMiddleware,
    KafkaTelemetryMiddleware,
)
from faststream_otel.telemetry import ServiceRegistry
from prometheus_client import start_http_server

telemetry = Telemetry("users")
registry = ServiceRegistry(telemetry.resource)
prometheus = KafkaPrometheusMiddleware(registry=registry)
retry = KafkaRetryMiddleware(metrics=prometheus.metrics)
broker = KafkaBroker(
    "localhost:9092",
    middlewares=[KafkaTelemetryMiddleware(**telemetry.providers), prometheus, retry],
    **retry.broker_options,
)
app = FastStream(broker, lifespan=telemetry.lifespan, on_startup=[telemetry.watch_event_loop])


@app.on_startup
def serve_metrics() -> None:
    start_http_server(8000, registry=registry)


@broker.subscriber("in-topic", group_id="users")
@broker.publisher("out-topic")
async def handle_msg(user: str, user_id: int) -> str:
    if user_id < 0:
        raise ValueError("no such user")
    return f"User: {user_id} - {user} registered"
