from faststream import FastStream
from faststream.kafka import KafkaBroker, KafkaRouter
from faststream_otel import Telemetry
from faststream_otel.kafka import KafkaTelemetryMiddleware

telemetry = Telemetry("users")
broker = KafkaBroker(
    "localhost:9092", middlewares=[KafkaTelemetryMiddleware(**telemetry.providers)]
)
app = FastStream(broker, lifespan=telemetry.lifespan)
router = KafkaRouter()


@router.subscriber("in-topic")
@router.publisher("out-topic")
async def handle_msg(user: str, user_id: int) -> str:
    return f"User: {user_id} - {user} registered"


broker.include_router(router)
