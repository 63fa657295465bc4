from fastapi import FastAPI
from faststream.kafka import KafkaBroker
from faststream_fastapi import FastStreamAPI
from faststream_otel import Telemetry
from faststream_otel.kafka import KafkaTelemetryMiddleware
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from pydantic import BaseModel


class User(BaseModel):
    user: str
    user_id: int


telemetry = Telemetry("users")
broker = KafkaBroker(
    "localhost:9092", middlewares=[KafkaTelemetryMiddleware(**telemetry.providers)]
)


@broker.subscriber("in-topic")
@broker.publisher("out-topic")
async def handle_msg(user: User) -> str:
    return f"User: {user.user_id} - {user.user} registered"


api = FastAPI(lifespan=telemetry.lifespan)
FastAPIInstrumentor.instrument_app(api, exclude_spans=["receive", "send"])


@api.post("/users")
async def register(user: User) -> None:
    await broker.publish(user, "in-topic")


app = FastStreamAPI(broker, application=api, safe_connection=True)
