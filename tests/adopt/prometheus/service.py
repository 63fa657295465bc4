from faststream.asgi import AsgiFastStream
from faststream.kafka import KafkaBroker
from faststream_otel import Telemetry
from faststream_otel.kafka import (
    KafkaPrometheusMiddleware,
    KafkaRetryMiddleware,
    KafkaTelemetryMiddleware,
)
from faststream_otel.telemetry import ServiceRegistry
from prometheus_client import make_asgi_app

telemetry = Telemetry("users")
registry = ServiceRegistry(telemetry.resource)
prometheus = KafkaPrometheusMiddleware(registry=registry)
retry = KafkaRetryMiddleware(metrics=prometheus.metrics)
broker = KafkaBroker(
    "localhost:9092",
    middlewares=[KafkaTelemetryMiddleware(**telemetry.providers), prometheus, retry],
    **retry.broker_options,
)
app = AsgiFastStream(
    broker,
    lifespan=telemetry.lifespan,
    on_startup=[telemetry.watch_event_loop],
    asgi_routes=[("/metrics", make_asgi_app(registry))],
)


@broker.subscriber("in-topic", group_id="users")
@broker.publisher("out-topic")
async def handle_msg(user: str, user_id: int) -> str:
    if user_id < 0:
        raise ValueError("no such user")
    return f"User: {user_id} - {user} registered"
