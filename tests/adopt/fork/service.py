import asyncio
import signal
from multiprocessing import get_context

from faststream import FastStream
from faststream.kafka import KafkaBroker
from faststream_otel import Telemetry
from faststream_otel.kafka import KafkaTelemetryMiddleware

telemetry = Telemetry("users")
broker = KafkaBroker(
    "localhost:9092", middlewares=[KafkaTelemetryMiddleware(**telemetry.providers)]
)
app = FastStream(broker, lifespan=telemetry.lifespan)


@broker.subscriber("in-topic")
@broker.publisher("out-topic")
async def handle_msg(user: str, user_id: int) -> str:
    return f"User: {user_id} - {user} registered"


def serve() -> None:
    asyncio.run(app.run())


if __name__ == "__main__":
    workers = [get_context("fork").Process(target=serve) for _ in range(2)]
    for worker in workers:
        worker.start()

    def stop(*_: object) -> None:
        for worker in workers:
            worker.terminate()

    signal.signal(signal.SIGTERM, stop)
    for worker in workers:
        worker.join()
