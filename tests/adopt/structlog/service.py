import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog
from faststream import FastStream
from faststream.kafka import KafkaBroker
from faststream_otel import Telemetry
from faststream_otel.kafka import KafkaTelemetryMiddleware
from faststream_otel.telemetry import TraceContextFilter

# `logging` raises KeyError for an extra field of such a name.
RESERVED = {*vars(logging.makeLogRecord({})), "message", "asctime"} - {"exc_info", "stack_info"}


def rename_reserved(logger: Any, method: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
    return {f"{key}_" if key in RESERVED else key: value for key, value in event.items()}


handler = logging.StreamHandler(sys.stdout)
handler.addFilter(TraceContextFilter())
handler.setFormatter(
    structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.ExtraAdder()],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(),
        ],
    )
)
logging.basicConfig(level=logging.INFO, handlers=[handler])
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.filter_by_level,
        rename_reserved,
        structlog.stdlib.render_to_log_args_and_kwargs,
    ],
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
    structlog.contextvars.bind_contextvars(user_id=user_id)
    log.info("registered", name=user)
    log.info("%s is number %d", user, user_id)
    if user_id < 0:
        try:
            raise ValueError("no such user")
        except ValueError:
            log.exception("refused")
            logging.getLogger("users").exception("refused, says logging")
    return f"User: {user_id} - {user} registered"
