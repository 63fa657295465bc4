from faststream import FastStream
from faststream.nats import NatsBroker, PullSub
from faststream_otel import Telemetry
from faststream_otel.nats import NatsRetryMiddleware, NatsTelemetryMiddleware

telemetry = Telemetry("users")
retry = NatsRetryMiddleware()
broker = NatsBroker(
    "nats://localhost:4222",
    middlewares=[NatsTelemetryMiddleware(**telemetry.providers), retry],
    **retry.broker_options,
)
app = FastStream(broker, lifespan=telemetry.lifespan)


@broker.subscriber("users.in", stream="users", durable="users", pull_sub=PullSub(1), no_reply=True)
@broker.publisher("users.out", stream="users")
async def handle_msg(user: str, user_id: int) -> str:
    if user_id < 0:
        raise ValueError("no such user")
    return f"User: {user_id} - {user} registered"
