import logging
import sys

from faststream import FastStream
from faststream.kafka import KafkaBroker
from faststream_otel import Telemetry
from faststream_otel.kafka import KafkaTelemetryMiddleware
from faststream_otel.telemetry import TraceContextFilter
from loguru import logger


class ToLogging(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        record.exc_text = None  # loguru leaves it empty: there would be no traceback
        logging.getLogger(record.name).handle(record)


handler = logging.StreamHandler(sys.stdout)
handler.addFilter(TraceContextFilter())
logging.basicConfig(
    level=logging.INFO,
    handlers=[handler],
    format="%(asctime)s %(levelname)s %(name)s trace_id=%(trace_id)s %(message)s",
)
logger.configure(handlers=[{"sink": ToLogging(), "format": lambda _: "{message}"}])

telemetry = Telemetry("users")
broker = KafkaBroker(
    "localhost:9092",
    middlewares=[KafkaTelemetryMiddleware(**telemetry.providers)],
    logger=logging.getLogger("messages"),
)
app = FastStream(broker, lifespan=telemetry.lifespan)


@broker.subscriber("in-topic")
@broker.publisher("out-topic")
async def handle_msg(user: str, user_id: int) -> str:
    logger.bind(user_id=user_id, name=user).info("registered")
    logger.info("{} is number {}", user, user_id)
    if user_id < 0:
        try:
            raise ValueError("no such user")
        except ValueError:
            logger.exception("refused")
            logging.getLogger("users").exception("refused, says logging")
    return f"User: {user_id} - {user} registered"
