"""Failed messages leave nothing in memory, even without the garbage collector."""

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
from faststream import BaseMiddleware
from faststream.exceptions import NackMessage, RejectMessage
from faststream.kafka import TestKafkaBroker
from faststream_otel.kafka.settings import KafkaSettings
from faststream_otel.service import Service
from pydantic import BaseModel

MESSAGES = 5


class Event(BaseModel):
    id: str


Handler = Callable[[Any], Any]


class Body:
    """Stands for a message's body. It is alive while anything refers to it."""

    everyone: ClassVar["weakref.WeakSet[Body]"] = weakref.WeakSet()

    def __init__(self) -> None:
        self.everyone.add(self)


class FailedError(Exception):
    def __init__(self) -> None:
        super().__init__("no use for it")
        self.body = Body()


async def raises(thing: Any) -> None:
    body = Body()  # noqa: F841 (held by the frame)
    raise FailedError


async def raises_because_of_another(thing: Any) -> None:
    try:
        raise FailedError
    except FailedError as error:
        raise LookupError from error


async def hangs(thing: Any) -> None:
    body = Body()  # noqa: F841
    await asyncio.sleep(60)


async def rejects(thing: Any) -> None:
    raise RejectMessage from FailedError()


async def asks_for_it_again(thing: Any) -> None:
    body = Body()  # noqa: F841
    raise NackMessage


async def awaits_what_fails(thing: Any) -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_exception(FailedError())
    await future


def raises_in_a_thread(thing: Any) -> None:
    body = Body()  # noqa: F841
    raise FailedError


FAILURES = [
    raises,
    raises_because_of_another,
    hangs,
    rejects,
    asks_for_it_again,
    awaits_what_fails,
    raises_in_a_thread,
]


@pytest.fixture(autouse=True)
def collector_off() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(params=["prometheus", "otlp"])
def service(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Service:
    monkeypatch.setattr("random.uniform", lambda *_: 0.0)  # no pauses
    settings = KafkaSettings(messaging_metrics=request.param, handler_timeout_seconds=0.002)
    return Service("memory", settings)


async def left_alive(service: Service, *, batch: bool = False) -> int:
    """Number of bodies that are still alive after messages were handled."""
    handled = 0

    class Watch(BaseMiddleware[Any, Any]):
        async def consume_scope(self, call_next: Any, msg: Any) -> Any:
            nonlocal handled
            handled += 1
            body = Body()  # noqa: F841
            return await call_next(msg)

    service.broker.faststream.insert_middleware(Watch)
    Body.everyone.clear()
    async with TestKafkaBroker(service.broker.faststream, connect_only=False):
        for _ in range(MESSAGES):
            if batch:
                await service.broker.faststream.publish_batch(
                    {"number": 1}, {"number": 2}, topic="things"
                )
            else:
                await service.broker.faststream.publish({"number": 1}, "things")
        await asyncio.sleep(0)  # the event loop keeps a reference to its last callback
        assert handled == MESSAGES
        return len(Body.everyone)


@pytest.mark.parametrize("batch", [False, True], ids=["single", "batch"])
@pytest.mark.parametrize("handler", FAILURES)
async def test_a_failing_handler_leaves_nothing(
    service: Service, handler: Handler, batch: bool
) -> None:
    service.subscriber("things", batch=batch)(handler)
    assert await left_alive(service, batch=batch) == 0


async def test_a_message_that_does_not_fit_leaves_nothing(service: Service) -> None:
    @service.subscriber("things")
    async def handle(number: int, more: int) -> None: ...

    assert await left_alive(service) == 0


@pytest.mark.parametrize("style", ["returned", "sent"])
async def test_a_publication_that_fails_leaves_nothing(service: Service, style: str) -> None:
    class Fails(BaseMiddleware[Any, Any]):
        async def publish_scope(self, call_next: Any, cmd: Any) -> Any:
            if cmd.destination == "results":
                confirmed = asyncio.get_running_loop().create_future()
                confirmed.set_exception(FailedError())
                return await confirmed  # as aiokafka's producer does
            return await call_next(cmd)

    results = service.publisher("results")
    service.broker.faststream.add_middleware(Fails)

    @service.subscriber("things")
    async def handle(thing: Any) -> Event | None:
        result = Event(id="1")
        if style == "returned":
            return result
        await service.send(results, result)
        return None

    if style == "returned":
        results(handle)

    assert await left_alive(service) == 0
