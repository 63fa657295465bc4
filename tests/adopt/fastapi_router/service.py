from fastapi import FastAPI
from faststream import AckPolicy
from faststream.kafka.fastapi import KafkaRouter
from faststream_otel import Telemetry
from faststream_otel.kafka import KafkaRetryMiddleware, KafkaTelemetryMiddleware
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from pydantic import BaseModel


class User(BaseModel):
    user: str
    user_id: int


telemetry = Telemetry("users")
router = KafkaRouter(
    "localhost:9092",
    middlewares=[KafkaTelemetryMiddleware(**telemetry.providers), KafkaRetryMiddleware()],
)


@router.subscriber("in-topic", group_id="users", ack_policy=AckPolicy.NACK_ON_ERROR)
@router.publisher("out-topic")
async def handle_msg(user: User) -> str:
    return f"User: {user.user_id} - {user.user} registered"


@router.post("/users")
async def register(user: User) -> None:
    await router.broker.publish(user, "in-topic")


app = FastAPI(lifespan=telemetry.lifespan)
app.include_router(router)
FastAPIInstrumentor.instrument_app(app, exclude_spans=["receive", "send"])
