from faststream import FastStream
from faststream.rabbit import QueueType, RabbitBroker, RabbitQueue
from faststream_otel import Telemetry
from faststream_otel.rabbitmq import RabbitRetryMiddleware, RabbitTelemetryMiddleware

telemetry = Telemetry("users")
retry = RabbitRetryMiddleware()
broker = RabbitBroker(
    "amqp://localhost",
    middlewares=[RabbitTelemetryMiddleware(**telemetry.providers), retry],
    **retry.broker_options,
)
app = FastStream(broker, lifespan=telemetry.lifespan)


@broker.subscriber(RabbitQueue("users.in", queue_type=QueueType.QUORUM), no_reply=True)
@broker.publisher("users.out")
async def handle_msg(user: str, user_id: int) -> str:
    if user_id < 0:
        raise ValueError("no such user")
    return f"User: {user_id} - {user} registered"
