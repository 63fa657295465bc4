from faststream import FastStream
from faststream.kafka import KafkaBroker
from faststream_otel import Telemetry
from faststream_otel.kafka import KafkaTelemetryMiddleware

telemetry = Telemetry("users")
here = KafkaBroker(
    "localhost:9092",
    middlewares=[KafkaTelemetryMiddleware(**telemetry.providers, server_address="here")],
)
there = KafkaBroker(
    "localhost:9093",
    middlewares=[KafkaTelemetryMiddleware(**telemetry.providers, server_address="there")],
)
app = FastStream(here, there, lifespan=telemetry.lifespan)


@here.subscriber("in-topic")
async def handle_msg(user: str, user_id: int) -> None:
    await there.publish(f"User: {user_id} - {user} registered", "out-topic")
