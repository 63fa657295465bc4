"""The measured flow: each handler logs one record, as those of what is baked do, and passes on."""

import logging
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from pydantic import BaseModel

from .meter import Meter

logger = logging.getLogger("flow")

Decorator = Callable[[str], Callable[[Any], Any]]


class Event(BaseModel):
    number: int
    payload: str = ""


def body(number: int, size: int) -> bytes:
    """An event as JSON, of about this many bytes."""
    empty = Event(number=number).model_dump_json().encode()
    return Event(number=number, payload="x" * max(0, size - len(empty))).model_dump_json().encode()


def add_handlers(subscriber: Decorator, publisher: Decorator, meter: Meter) -> None:
    """Pass the events of each channel on to the next."""
    for source, target in pairwise(meter.plan.channels):
        add_handler(subscriber(source), publisher(target), meter)


def add_handler(
    subscribe: Callable[[Any], Any], publish: Callable[[Any], Any], meter: Meter
) -> None:
    @subscribe
    @publish
    async def pass_on(event: Event) -> Event:
        logger.info("Event %s passed on", event.number)
        meter.hop()
        return event


def group(channel: str) -> str:
    """The consumer group of a `Service` called `flow`, and of all the others."""
    return f"flow.{channel}"
