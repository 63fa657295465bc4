import logging
import sys

import structlog
from faststream import FastStream
from faststream.kafka import KafkaBroker
from faststream_otel import Telemetry
from faststream_otel.kafka import KafkaTelemetryMiddleware
from faststream_otel.telemetry import TraceContextFilter

handler = logging.StreamHandler(sys.stdout)
handler.addFilter(TraceContextFilter())
handler.setFormatter(
    structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.ExtraAdder()],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(),
        ],
    )
)
logging.basicConfig(level=logging.INFO, handlers=[handler])
structlog.configure(
    processors=[structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
)

log = structlog.get_logger("users")
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
    log.info("registered", user_id=user_id)
    return f"User: {user_id} - {user} registered"
