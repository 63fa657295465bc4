"""An application with only `Telemetry`, whose broker fails to stop."""

import os
from typing import Any

from faststream import FastStream
from faststream.asgi import AsgiFastStream
from faststream.kafka import KafkaBroker
from faststream_otel.telemetry import Telemetry

telemetry = Telemetry("adopted")
broker = KafkaBroker(os.environ["BROKER_URL"])
app = AsgiFastStream(broker, lifespan=telemetry.lifespan)
plain = FastStream(broker, lifespan=telemetry.lifespan)


@app.after_startup
@plain.after_startup
async def begin() -> None:
    telemetry.tracer_provider.get_tracer("adopted").start_span("begin").end()
    print("begun", flush=True)


async def fail(*_: Any) -> None:
    raise LookupError("lost the way out")


setattr(broker, "stop", fail)  # noqa: B010 (mypy lets no method be assigned)
