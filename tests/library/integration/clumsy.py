"""A service that fails at startup or shutdown, as FAULT says, for tests of its shutdown."""

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from faststream.asgi import AsgiFastStream
from faststream_otel.kafka.settings import KafkaSettings
from faststream_otel.service import Service
from opentelemetry import trace

service = Service("clumsy", KafkaSettings())
broker = service.broker.faststream
app: AsgiFastStream = service.app


async def fail(*_: Any) -> None:
    raise LookupError("lost the way out")


async def leave(*_: Any) -> None:
    raise SystemExit(3)


async def hang(*_: Any) -> None:
    await asyncio.Event().wait()


async def hang_on(*_: Any) -> None:
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


def hang_in_a_thread() -> None:
    time.sleep(3600)


def note(step: str) -> None:
    """Record a span that shows that this step ran."""
    trace.get_tracer("clumsy").start_span(step).end()


FAULTS: dict[str, Callable[[], object]] = {
    "hook raises": lambda: app.on_shutdown(fail),
    "hook exits": lambda: app.on_shutdown(leave),
    "hook hangs": lambda: app.on_shutdown(hang),
    "plain hook hangs": lambda: app.on_shutdown(hang_in_a_thread),
    "late hook raises": lambda: app.after_shutdown(fail),
    "broker raises": lambda: setattr(broker, "stop", fail),
    "broker hangs": lambda: setattr(broker, "stop", hang),
    "broker hangs on": lambda: setattr(broker, "stop", hang_on),
    "flush raises": lambda: setattr(service.telemetry, "shutdown", fail),
    "start raises": lambda: setattr(broker, "start", fail),
    "start hook raises": lambda: app.on_startup(fail),
}


@app.on_startup
async def begin() -> None:
    note("begin")


if fault := os.environ.get("FAULT"):
    FAULTS[fault]()


@app.after_startup
async def started() -> None:
    note("started")


@app.on_shutdown
async def stopping() -> None:
    note("stopping")


@app.after_shutdown
async def stopped() -> None:
    note("stopped")


if __name__ == "__main__":
    service.run()
