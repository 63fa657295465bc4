from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Response
from faststream.asgi import AsgiFastStream
from faststream.kafka import KafkaBroker
from faststream_otel import Telemetry
from faststream_otel.kafka import KafkaPrometheusMiddleware, KafkaTelemetryMiddleware
from faststream_otel.telemetry import ServiceRegistry
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel


class User(BaseModel):
    user: str
    user_id: int


telemetry = Telemetry("users")
registry = ServiceRegistry(telemetry.resource)
prometheus = KafkaPrometheusMiddleware(registry=registry)
broker = KafkaBroker(
    "localhost:9092", middlewares=[KafkaTelemetryMiddleware(**telemetry.providers), prometheus]
)
messages = AsgiFastStream(broker, lifespan=telemetry.lifespan, on_startup=[broker.connect])


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with messages.start_lifespan_context():
        yield


app = FastAPI(lifespan=lifespan)
FastAPIInstrumentor.instrument_app(
    app, excluded_urls="/metrics$", exclude_spans=["receive", "send"]
)


@app.get("/metrics", include_in_schema=False)
def metrics() -> Response:
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


@broker.subscriber("in-topic")
@broker.publisher("out-topic")
async def handle_msg(user: User) -> str:
    return f"User: {user.user_id} - {user.user} registered"


@app.post("/users")
async def register(user: User) -> None:
    await broker.publish(user, "in-topic")
