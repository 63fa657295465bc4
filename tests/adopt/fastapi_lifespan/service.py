from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from faststream.asgi import AsgiFastStream
from faststream.kafka import KafkaBroker
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
# Connecting first ends a service whose broker is away; else it would live on without consumers.
messages = AsgiFastStream(broker, lifespan=telemetry.lifespan, on_startup=[broker.connect])


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with messages.start_lifespan_context():
        yield


app = FastAPI(lifespan=lifespan)
FastAPIInstrumentor.instrument_app(app, exclude_spans=["receive", "send"])


@broker.subscriber("in-topic")
@broker.publisher("out-topic")
async def handle_msg(user: User) -> str:
    return f"User: {user.user_id} - {user.user} registered"


@app.post("/users")
async def register(user: User) -> None:
    await broker.publish(user, "in-topic")
