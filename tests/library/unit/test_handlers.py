"""Plain functions, batch handlers, and validation errors in handlers."""

import asyncio
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from fast_depends import inject
from faststream import Depends
from faststream.kafka import TestKafkaBroker
from faststream_otel.kafka.settings import KafkaSettings
from faststream_otel.messages.validation import BatchPublisherError
from faststream_otel.service import Service
from opentelemetry.trace import StatusCode
from pydantic import BaseModel, TypeAdapter

from ..memory import in_memory

ATTEMPTS = 3

Handler = Callable[..., Any]


class Thing(BaseModel):
    number: int


class Reply(BaseModel):
    price: int


@pytest.fixture
def service() -> Service:
    settings = KafkaSettings(
        retry_attempts=ATTEMPTS, retry_backoff_seconds=0, handler_timeout_seconds=0.05
    )
    return Service("handlers", settings)


# --- A plain function runs in a thread, which nothing can cancel.


class Threads:
    """Counts how many threads work at the same time."""

    def __init__(self) -> None:
        self.calls = self.most = self._now = 0
        self._lock = threading.Lock()

    def work(self, seconds: float) -> None:
        with self._lock:
            self.calls += 1
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(seconds)
        with self._lock:
            self._now -= 1


async def test_no_attempt_starts_before_the_thread_of_the_last_has_ended(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    threads = Threads()

    @service.subscriber("things")
    def slow(thing: Thing) -> None:
        threads.work(0.1)
        raise LookupError

    async with TestKafkaBroker(service.broker.faststream):
        await service.broker.faststream.publish({"number": 1}, "things")
    assert (threads.calls, threads.most) == (ATTEMPTS, 1)
    warnings = [record.getMessage() for record in caplog.records if "thread" in record.msg]
    assert len(warnings) == ATTEMPTS
    assert all("Handler slow has not ended within 0.05 s" in warning for warning in warnings)


async def test_a_thread_that_succeeds_after_its_time_out_is_not_retried(service: Service) -> None:
    threads, published = Threads(), []

    @service.subscriber("things")
    @service.publisher("results")
    def slow(thing: Thing) -> Thing:
        threads.work(0.1)
        return thing

    @service.subscriber("results")
    async def see(thing: Thing) -> None:
        published.append(thing.number)

    async with TestKafkaBroker(service.broker.faststream):
        await service.broker.faststream.publish({"number": 1}, "things")
    assert (threads.calls, published) == (1, [1])


async def test_a_dependency_in_a_thread_is_also_waited_for(service: Service) -> None:
    threads = Threads()

    def price() -> int:
        threads.work(0.1)
        raise LookupError

    @service.subscriber("things")
    async def handle(thing: Thing, price: int = Depends(price)) -> None: ...

    async with TestKafkaBroker(service.broker.faststream):
        await service.broker.faststream.publish({"number": 1}, "things")
    assert (threads.calls, threads.most) == (ATTEMPTS, 1)


async def test_the_time_out_cancels_what_follows_a_thread(service: Service) -> None:
    threads, ends = Threads(), []

    @service.subscriber("things")
    async def handle(thing: Thing, _: None = Depends(lambda: threads.work(0.1))) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    async with TestKafkaBroker(service.broker.faststream):
        await service.broker.faststream.publish({"number": 1}, "things")
    assert ends == ["cancelled"] * ATTEMPTS


async def test_a_batch_in_a_thread_does_not_overlap_itself(service: Service) -> None:
    threads = Threads()

    @service.subscriber("things", batch=True)
    def slow(things: list[Thing]) -> None:
        threads.work(0.06)
        raise LookupError

    async with TestKafkaBroker(service.broker.faststream):
        await service.broker.faststream.publish_batch({"number": 1}, {"number": 2}, topic="things")
    assert threads.most == 1


async def test_the_process_span_of_a_handler_that_was_cancelled_says_so(service: Service) -> None:
    @service.subscriber("things")
    async def handle(thing: Thing) -> None:
        started.set()
        await asyncio.sleep(60)

    started = asyncio.Event()
    async with in_memory(service) as exporter:
        task = asyncio.create_task(service.broker.faststream.publish({"number": 1}, "things"))
        await started.wait()
        task.cancel()
        await asyncio.wait([task])
    (span,) = (one for one in exporter.get_finished_spans() if one.name == "process things")
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes
    assert span.attributes["error.type"] == "asyncio.exceptions.CancelledError"


async def test_the_spans_of_retries_use_the_services_provider(service: Service) -> None:
    @service.subscriber("things")
    async def handle(thing: Thing) -> None:
        raise LookupError

    async with in_memory(service) as exporter:  # the global provider is another service's
        await service.broker.faststream.publish({"number": 1}, "things")
    retries = [one for one in exporter.get_finished_spans() if one.name == "retry things"]
    assert len(retries) == ATTEMPTS - 1
    assert {one.resource.attributes["service.name"] for one in retries} == {"handlers"}


# --- Validation errors: about the message, or about other data.


def calls_of(service: Service, handler: Handler) -> list[Any]:
    """Subscribe a handler, and return the list of its calls."""
    calls: list[Any] = []

    @service.subscriber("things")
    async def handle(thing: Thing) -> Any:
        calls.append(thing)
        return handler()

    return calls


def validates_a_reply() -> None:
    Reply.model_validate({"price": "much"})


def validates_json() -> None:
    TypeAdapter(list[int]).validate_json("[1, null]")


@inject
def injected(price: int) -> None: ...


def calls_an_injected_function() -> None:
    injected("much")  # type: ignore[arg-type]


@pytest.mark.parametrize("handler", [validates_a_reply, validates_json, calls_an_injected_function])
async def test_a_validation_error_inside_a_handler_is_retried(
    service: Service, handler: Handler
) -> None:
    calls = calls_of(service, handler)
    async with TestKafkaBroker(service.broker.faststream):
        await service.broker.faststream.publish({"number": 1}, "things")
    assert len(calls) == ATTEMPTS


async def test_a_validation_error_inside_a_dependency_is_retried(service: Service) -> None:
    calls = []

    async def price() -> int:
        calls.append("price")
        return Reply.model_validate({"price": "much"}).price

    @service.subscriber("things")
    async def handle(thing: Thing, price: int = Depends(price)) -> None: ...

    async with TestKafkaBroker(service.broker.faststream):
        await service.broker.faststream.publish({"number": 1}, "things")
    assert len(calls) == ATTEMPTS


async def test_a_result_of_the_wrong_type_is_retried(
    service: Service,
) -> None:
    calls = []

    @service.subscriber("things")
    async def handle(thing: Thing) -> Reply:
        calls.append(thing)
        return {"price": "much"}  # type: ignore[return-value]

    async with TestKafkaBroker(service.broker.faststream):
        await service.broker.faststream.publish({"number": 1}, "things")
    assert len(calls) == ATTEMPTS


@pytest.mark.parametrize("body", [{"number": "one"}, {}, b"{not json", b"", [1, 2], "text"])
async def test_a_message_that_does_not_fit_is_not_retried(
    service: Service, body: Any, caplog: pytest.LogCaptureFixture
) -> None:
    calls = calls_of(service, lambda: None)
    async with TestKafkaBroker(service.broker.faststream):
        await service.broker.faststream.publish(body, "things")
    assert not calls
    assert "of things goes to the dead letters after attempt 1" in caplog.text


async def test_a_message_that_does_not_fit_a_dependency_is_not_retried(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    async def twice(number: int) -> int:
        return number * 2

    @service.subscriber("things")
    async def handle(number: str, twice: int = Depends(twice)) -> None: ...

    async with TestKafkaBroker(service.broker.faststream):
        await service.broker.faststream.publish({"number": "one"}, "things")
    assert "goes to the dead letters after attempt 1" in caplog.text


# --- A failed batch is handled message by message, so its results would be lost.


async def handle_all(things: list[Thing]) -> Thing:
    return things[0]


def publishes_below(service: Service) -> None:
    service.subscriber("things", batch=True)(service.publisher("results")(handle_all))


def publishes_above(service: Service) -> None:
    service.publisher("results")(service.subscriber("things", batch=True)(handle_all))


def also_takes_batches(service: Service) -> None:
    single = service.subscriber("others")(service.publisher("results")(handle_all))
    service.subscriber("things", batch=True)(single)


@pytest.mark.parametrize("declare", [publishes_below, publishes_above, also_takes_batches])
def test_a_batch_handler_with_a_publisher_is_refused(
    service: Service, declare: Callable[[Service], None]
) -> None:
    with pytest.raises(BatchPublisherError, match=r"'handle_all' takes batches") as raised:
        declare(service)
    assert re.search(r"await service\.send\(", str(raised.value))


@pytest.mark.parametrize("above", [True, False])
async def test_a_batch_handler_decorated_by_the_broker_is_refused_at_the_start(
    service: Service, above: bool
) -> None:
    publisher = service.broker.faststream.publisher("results")
    subscriber = service.broker.faststream.subscriber("things", batch=True)
    if above:
        publisher(subscriber(handle_all))
    else:
        subscriber(publisher(handle_all))
    with pytest.raises(BatchPublisherError):
        service.broker.check()


async def test_a_batch_handler_may_send(service: Service) -> None:
    results, seen = service.publisher("results"), []

    @service.subscriber("things", batch=True)
    async def handle(things: list[Thing]) -> None:
        for thing in things:
            await results.publish(thing)

    @service.subscriber("results")
    async def see(thing: Thing) -> None:
        seen.append(thing.number)

    async with TestKafkaBroker(service.broker.faststream):
        await service.broker.faststream.publish_batch({"number": 1}, {"number": 2}, topic="things")
    assert seen == [1, 2]


async def test_the_asyncapi_document_says_what_a_handler_takes(service: Service) -> None:
    @service.subscriber("things")
    async def handle(thing: Thing) -> None: ...

    document = service.app.schema.to_specification().to_jsonable()
    assert document["components"]["schemas"]["Thing"]["properties"].keys() == {"number"}
