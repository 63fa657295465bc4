import logging

from faststream.asgi import AsgiFastStream
from faststream.kafka import KafkaBroker
from faststream_otel import Telemetry
from faststream_otel.kafka import KafkaTelemetryMiddleware

log = logging.getLogger("users")
telemetry = Telemetry("users")
broker = KafkaBroker(
    "localhost:9092",
    middlewares=[KafkaTelemetryMiddleware(**telemetry.providers)],
    logger=logging.getLogger("messages"),
)
app = AsgiFastStream(broker, lifespan=telemetry.lifespan)


@broker.subscriber("in-topic")
@broker.publisher("out-topic")
async def handle_msg(user: str, user_id: int) -> str:
    log.info("registered")
    return f"User: {user_id} - {user} registered"
