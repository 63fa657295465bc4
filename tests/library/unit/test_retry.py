"""What the retry middleware does with each kind of failure, and how long it may take."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
    suppress,
)
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple
from unittest.mock import AsyncMock, Mock, patch

import pytest
from faststream import ContextRepo
from faststream.exceptions import (
    AckMessage,
    NackMessage,
    RejectMessage,
    SkipMessage,
    StopApplication,
    StopConsume,
)
from faststream.message import AckStatus
from faststream_otel.messages import retry
from faststream_otel.messages.broker import Raw, Unavailable
from faststream_otel.messages.consumers import Consumers
from faststream_otel.messages.dead_letters import DEAD_LETTERS
from faststream_otel.messages.prometheus import MessagingMetrics
from faststream_otel.messages.retry import RetryMiddleware, RetryPolicy
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from prometheus_client import CollectorRegistry

Handler = Callable[[Any], Awaitable[Any]]


class BadMessageError(Exception):
    alive: ClassVar["weakref.WeakSet[BadMessageError]"] = weakref.WeakSet()

    def __init__(self) -> None:
        super().__init__()
        self.alive.add(self)


class Broker:
    """A broker whose messages are numbers. Implements `Messages`."""

    takes_options = False
    any_headers = True
    dead_letter_sizes: Sequence[int] = (0,)

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes, dict[str, str]]] = []
        self.held = 0

    def channel(self, message: Any) -> str:
        return "numbers"

    def sent_to(self, command: Any) -> str:
        return str(command.destination)

    def count(self, message: Any) -> int:
        return len(self.singles(message))

    def raw(self, message: Any) -> Raw:
        return Raw("numbers", message.message_id, None, b"body", ())

    def singles(self, message: Any) -> list[Any]:
        return message.body if isinstance(message.body, list) else [message]

    @asynccontextmanager
    async def in_flight(self, message: Any) -> AsyncIterator[None]:
        self.held += 1
        try:
            yield
        finally:
            self.held -= 1

    def confirmation(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    def acknowledgement(self) -> Exception:
        return RejectMessage()

    def redelivery(self, error: Exception) -> Exception:
        return error

    async def send(self, channel: str, *, body: bytes, headers: dict[str, str], **_: Any) -> None:
        self.sent.append((channel, body, headers))


class DeadLetter(NamedTuple):
    """A dead letter, according to its headers."""

    id: str
    attempts: int
    error: str
    reason: str


class Bench:
    """The middleware, its metrics, and the dead letters that it sent."""

    def __init__(self, **options: Any) -> None:
        self.broker = Broker()
        self.registry = CollectorRegistry()
        self.spans = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.policy = RetryPolicy(**{"attempts": 3, "backoff": 0.0, "timeout": 0.05} | options)
        self.consumers = Mock(Consumers)
        self.consumers.busy.side_effect = self._busy
        self.busy: list[float] = []
        """Time limits, in seconds, of the messages that are being handled now."""
        self.make = RetryMiddleware(
            self.policy,
            self.broker,
            tracer_provider=provider,
            metrics=MessagingMetrics(self.registry),
            consumers=self.consumers,
        )

    async def handle(self, handler: Handler, message: Any) -> Any:
        async with self.make(message, context=ContextRepo()) as middleware:
            return await middleware.consume_scope(handler, message)

    async def publish_result(self, publish: Handler, message: Any) -> Any:
        """Publish a handler's result like FastStream does."""
        async with self.make(message, context=ContextRepo()) as middleware:
            await middleware.consume_scope(returns_at_once, message)
            return await middleware.publish_scope(publish, SimpleNamespace())  # type: ignore[arg-type]

    @property
    def dead_letters(self) -> list[DeadLetter]:
        assert all(channel == DEAD_LETTERS for channel, _, _ in self.broker.sent)
        return [
            DeadLetter(
                headers["dead-letter.message-id"],
                int(headers["dead-letter.attempts"]),
                headers["dead-letter.error.type"],
                headers["dead-letter.reason"],
            )
            for _, _, headers in self.broker.sent
        ]

    def counted(self, name: str) -> float:
        """The value of a metric for the channel `numbers`."""
        labels = {"messaging_destination_template": "numbers"}
        return self.registry.get_sample_value(name, labels) or 0

    @property
    def postponed(self) -> int:
        return len(self.consumers.postponed.mock_calls)

    @contextmanager
    def _busy(self, channel: str, seconds: float) -> Iterator[None]:
        self.busy.append(seconds)
        try:
            yield
        finally:
            self.busy.pop()


async def returns_at_once(message: Any) -> str:
    return "result"


def message(number: int = 0, decode: Any = None) -> Any:
    return SimpleNamespace(
        message_id=str(number),
        body=number,
        committed=None,
        correlation_id=None,
        headers={},
        decode=decode or AsyncMock(),
        ack=AsyncMock(),
    )


def batch(size: int) -> Any:
    each = [message(number) for number in range(size)]
    whole = message(decode=AsyncMock())
    whole.message_id, whole.body = "batch", each
    return whole


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between deliveries. They take no time, and have no jitter."""
    found: list[float] = []

    async def sleep(seconds: float) -> None:
        if seconds:
            found.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    return found


async def test_an_unreadable_message_is_not_retried() -> None:
    bench = Bench()
    handler = AsyncMock()
    unreadable = message(decode=AsyncMock(side_effect=ValueError("not JSON")))
    with pytest.raises(RejectMessage):
        await bench.handle(handler, unreadable)
    handler.assert_not_called()
    (dead_letter,) = bench.dead_letters
    assert (dead_letter.reason, dead_letter.attempts) == ("not JSON", 1)


async def test_a_handler_that_fails_twice_succeeds_at_the_third_attempt() -> None:
    bench, outcomes = Bench(), iter([ValueError("one"), ValueError("two"), None])

    async def handler(message: Any) -> str:
        if error := next(outcomes):
            raise error
        return "done"

    assert await bench.handle(handler, message()) == "done"
    assert bench.counted("messaging_retries_total") == 2
    assert not bench.dead_letters


async def test_a_message_whose_handler_hangs_goes_to_the_dead_letters() -> None:
    bench, calls = Bench(), []

    async def handler(message: Any) -> None:
        calls.append(message)
        await asyncio.sleep(60)

    with pytest.raises(RejectMessage):
        await bench.handle(handler, message())
    assert len(calls) == 3
    (dead_letter,) = bench.dead_letters
    assert (dead_letter.error, dead_letter.attempts) == ("TimeoutError", 3)


async def test_an_unavailable_broker_does_not_cost_the_message(
    pauses: list[float],
) -> None:
    bench, calls = Bench(), []

    async def handler(message: Any) -> None:
        calls.append(message)
        raise Unavailable

    with pytest.raises(Unavailable):  # not acknowledged, so it is redelivered
        await bench.handle(handler, message())
    assert len(calls) == 1
    assert not bench.dead_letters


async def test_a_result_that_cannot_be_published_sends_its_message_to_the_dead_letters_once() -> (
    None
):
    bench, published = Bench(), []

    async def publish(command: Any) -> None:
        published.append(command)
        raise ValueError("too large")

    with pytest.raises(RejectMessage):
        await bench.publish_result(publish, message(7))
    (dead_letter,) = bench.dead_letters
    assert (dead_letter.id, dead_letter.attempts) == ("7", 1)
    assert len(published) == 1


async def test_a_result_for_an_unavailable_broker_does_not_cost_the_message(
    pauses: list[float],
) -> None:
    async def publish(command: Any) -> None:
        raise Unavailable

    bench = Bench()
    for _ in range(5):
        with pytest.raises(Unavailable):
            await bench.publish_result(publish, message())
    assert not bench.dead_letters
    assert pauses == [1, 2, 4, 5, 5]  # it is redelivered, but not in a busy loop
    assert not bench.postponed  # no handler asked for it: the consumer may be stalled


async def nack(message: Any) -> None:
    raise NackMessage


async def nack_itself(message: Any) -> str:
    message.committed = AckStatus.NACKED  # as `await message.nack()` does
    return "result"


@pytest.mark.parametrize("handler", [nack, nack_itself])
async def test_a_nacked_message_is_redelivered_after_growing_pauses(
    handler: Handler, pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench()
    for number in range(1, 6):
        with suppress(NackMessage):
            await bench.handle(handler, message())
        assert f"redelivery {number} in a row" in caplog.text
    assert pauses == [1, 2, 4, 5, 5]
    assert bench.postponed == 5  # not stalled: its handler asked for it
    await bench.handle(returns_at_once, message())
    with suppress(NackMessage):
        await bench.handle(handler, message())
    assert pauses[5:] == [1]


async def test_a_nacked_message_does_not_become_a_dead_letter(pauses: list[float]) -> None:
    async def handler(message: Any) -> None:
        await nack_itself(message)
        raise LookupError

    bench = Bench()
    with pytest.raises(LookupError):
        await bench.handle(handler, message())
    assert not bench.dead_letters
    assert pauses == [1]


async def test_a_message_is_in_flight_while_its_consumer_pauses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench, held = Bench(), []

    async def sleep(seconds: float) -> None:
        held.append((bench.broker.held, seconds - bench.busy[-1]))

    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(NackMessage):
        await bench.handle(nack, message())
    assert held == [(1, 0)]


@pytest.mark.parametrize("decision", [AckMessage, RejectMessage, SkipMessage, StopConsume])
async def test_there_is_no_pause_without_a_redelivery(
    decision: type[Exception], pauses: list[float]
) -> None:
    async def decide(message: Any) -> None:
        raise decision

    with pytest.raises(decision):
        await Bench().handle(decide, message())
    assert not pauses


async def test_a_skipped_message_is_acknowledged() -> None:
    async def skip(message: Any) -> None:
        raise SkipMessage

    skipped = message()
    with pytest.raises(SkipMessage):
        await Bench().handle(skip, skipped)
    skipped.ack.assert_awaited_once_with()


async def test_unknown_options_of_a_nack_do_not_lose_the_message(
    pauses: list[float],
) -> None:
    async def decide(message: Any) -> None:
        raise NackMessage(requeue=True)

    with pytest.raises(NackMessage) as raised:
        await Bench().handle(decide, message())
    assert not raised.value.extra_options  # FastStream calls `message.nack(**extra_options)`


async def test_the_broker_chooses_how_to_acknowledge_and_redeliver(
    pauses: list[float],
) -> None:
    bench = Bench()
    bench.broker.takes_options = True
    bench.broker.acknowledgement = AckMessage  # type: ignore[method-assign]
    bench.broker.redelivery = lambda error: NackMessage(delay=1)  # type: ignore[method-assign]
    with pytest.raises(AckMessage):
        await bench.handle(AsyncMock(side_effect=ValueError), message())
    for failing in (bench.handle, bench.publish_result):
        with pytest.raises(NackMessage) as raised:
            await failing(AsyncMock(side_effect=Unavailable), message())
        assert raised.value.extra_options == {"delay": 1}
    assert len(bench.dead_letters) == 1


async def test_a_stop_interrupts_the_pause_of_a_consumer() -> None:
    task = asyncio.create_task(Bench().handle(nack, message()))
    await asyncio.sleep(0.01)
    task.cancel()
    async with asyncio.timeout(0.5):
        await asyncio.wait([task])
    assert task.cancelled()


ENDS: list[tuple[type[BaseException], str]] = [
    (ValueError, "ValueError"),
    (TimeoutError, "TimeoutError"),
    (asyncio.CancelledError, "asyncio.exceptions.CancelledError"),
    (KeyboardInterrupt, "KeyboardInterrupt"),
    (SystemExit, "SystemExit"),
]


@pytest.mark.parametrize(("error", "kind"), ENDS)
async def test_the_span_of_an_attempt_says_how_it_ended(
    error: type[BaseException], kind: str
) -> None:
    bench, calls = Bench(attempts=2), []

    async def handler(message: Any) -> None:
        calls.append(message)
        if len(calls) == 1:
            raise ValueError
        raise error

    with pytest.raises((RejectMessage, error)):
        await bench.handle(handler, message())
    (span,) = bench.spans.get_finished_spans()
    assert span.attributes
    assert (span.status.status_code, span.attributes["error.type"]) == (StatusCode.ERROR, kind)


async def test_an_error_from_a_future_leaves_nothing_in_memory() -> None:
    class Body:
        pass

    bodies: weakref.WeakSet[Body] = weakref.WeakSet()

    async def handler(message: Any) -> None:
        body = Body()
        bodies.add(body)
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        confirmed.set_exception(OSError("reset"))
        try:
            await confirmed
        except OSError as error:
            raise Unavailable from error

    bench = Bench()
    gc.disable()
    try:
        with patch("asyncio.sleep"), suppress(Unavailable):
            await bench.handle(handler, message())
        assert not bodies
    finally:
        gc.enable()


async def test_one_bad_message_does_not_fail_its_batch() -> None:
    bench, handled = Bench(), []

    async def handler(message: Any) -> None:
        for one in message.body if isinstance(message.body, list) else [message]:
            if one.body == 2:
                raise ValueError("bad")
            handled.append(one.body)

    with pytest.raises(RejectMessage):
        await bench.handle(handler, batch(5))
    assert [one.id for one in bench.dead_letters] == ["2"]
    assert set(handled) == {0, 1, 3, 4}


async def test_a_batch_that_hangs_ends_within_its_limit() -> None:
    bench, calls = Bench(timeout=0.02), []

    async def handler(message: Any) -> None:
        calls.append(message)
        await asyncio.sleep(60)

    started = asyncio.get_running_loop().time()
    with pytest.raises(RejectMessage):
        await bench.handle(handler, batch(100))
    took = asyncio.get_running_loop().time() - started

    # 100 messages one by one would take 300 time-outs; the limit is 13 time-outs.
    assert bench.policy.longest(100) == pytest.approx(13 * 0.02)
    assert len(calls) <= 3 + retry.BATCH_TIMEOUTS + 1, took
    assert [one.id for one in bench.dead_letters] == [str(n) for n in range(100)]
    assert "other messages of its batch" in bench.dead_letters[-1].reason


@pytest.mark.parametrize("decision", [NackMessage, StopConsume, StopApplication])
async def test_a_nacked_message_of_a_failed_batch_redelivers_the_batch(
    decision: type[BaseException], pauses: list[float]
) -> None:
    bench = Bench()

    async def handler(message: Any) -> None:
        if isinstance(message.body, list):
            raise ValueError("one of them is bad")
        if message.body == 1:
            raise decision

    with pytest.raises(decision):  # not acknowledged, none of the batch
        await bench.handle(handler, batch(3))


@pytest.mark.parametrize("how", [NackMessage, Unavailable, "nack"])
async def test_a_redelivered_batch_has_no_dead_letters_yet(
    how: type[Exception] | str, pauses: list[float]
) -> None:
    bench, whole = Bench(), batch(3)

    async def handler(message: Any) -> None:
        if message.body != 1:
            raise ValueError("bad")
        if isinstance(how, str):
            whole.committed = AckStatus.NACKED  # like `nack()` of the batch in the handler
        else:
            raise how

    with nullcontext() if isinstance(how, str) else pytest.raises(how):
        await bench.handle(handler, whole)
    assert not bench.dead_letters


async def test_the_errors_of_a_batch_leave_nothing_in_memory() -> None:
    bench = Bench()

    async def handler(message: Any) -> None:
        raise BadMessageError

    gc.collect()
    gc.disable()
    try:
        with suppress(RejectMessage):
            await bench.handle(handler, batch(3))
        assert len(bench.dead_letters) == 3
        assert not BadMessageError.alive
    finally:
        gc.enable()


@pytest.mark.parametrize("decision", [AckMessage, RejectMessage, SkipMessage])
async def test_an_acknowledged_message_of_a_failed_batch_stops_nothing(
    decision: type[Exception],
) -> None:
    bench, handled = Bench(), []

    async def handler(message: Any) -> None:
        if isinstance(message.body, list):
            raise ValueError("one of them is bad")
        if message.body == 1:
            raise decision
        handled.append(message.body)

    assert await bench.handle(handler, batch(3)) is None
    assert handled == [0, 2]
    assert not bench.dead_letters


async def test_an_unavailable_broker_amid_a_batch_redelivers_the_batch(
    pauses: list[float],
) -> None:
    bench = Bench()

    async def handler(message: Any) -> None:
        if isinstance(message.body, list):
            raise ValueError("one of them is bad")
        raise Unavailable

    with pytest.raises(Unavailable):
        await bench.handle(handler, batch(3))
    assert not bench.dead_letters
