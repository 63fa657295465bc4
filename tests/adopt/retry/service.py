from faststream import FastStream
from faststream.kafka import KafkaBroker
from faststream_otel import Telemetry
from faststream_otel.kafka import KafkaRetryMiddleware, KafkaTelemetryMiddleware

telemetry = Telemetry("users")
retry = KafkaRetryMiddleware()
broker = KafkaBroker(
    "localhost:9092",
    middlewares=[KafkaTelemetryMiddleware(**telemetry.providers), retry],
    **retry.broker_options,
)
app = FastStream(broker, lifespan=telemetry.lifespan)


@broker.subscriber("in-topic", group_id="users")
@broker.publisher("out-topic")
async def handle_msg(user: str, user_id: int) -> str:
    if user_id < 0:
        raise ValueError("no such user")
    return f"User: {user_id} - {user} registered"
