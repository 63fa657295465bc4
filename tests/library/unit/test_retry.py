"""What the retry policy does with a failure: whose fault it is, and how long it may take."""

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest.mock import AsyncMock, patch

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
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from faststream_otel.messages import retry
from faststream_otel.messages.retry import DeadLetter, RetryPolicy

Handler = Callable[[Any], Awaitable[Any]]


class BrokerAwayError(Exception):
    pass


class BadMessageError(Exception):
    alive: ClassVar["weakref.WeakSet[BadMessageError]"] = weakref.WeakSet()

    def __init__(self) -> None:
        super().__init__()
        self.alive.add(self)


class Bench:
    """A policy, and what it buried."""

    def __init__(self, **options: Any) -> None:
        self.buried: list[DeadLetter] = []
        self.retried: list[Any] = []
        self.postponed: list[Any] = []
        self.held = 0
        self.spans = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.spans))
        settings = {"attempts": 3, "backoff": 0.0, "timeout": 0.05} | options
        self.policy = RetryPolicy(
            **settings,
            bury=self._bury,
            redeliver=BrokerAwayError,
            confirmation=nullcontext,
            holding=self._hold,
            retried=self.retried.append,
            postponed=self.postponed.append,
            tracer=self.provider.get_tracer("retry"),
            singles=lambda message: message.body if isinstance(message.body, list) else [message],
        )

    async def handle(self, handler: Handler, message: Any) -> Any:
        async with self.policy(message, context=ContextRepo()) as middleware:
            return await middleware.consume_scope(handler, message)

    async def publish_result(self, publish: Handler, message: Any) -> Any:
        """As FastStream does with what a handler of this message returned."""
        async with self.policy(message, context=ContextRepo()) as middleware:
            await middleware.consume_scope(returns_at_once, message)
            return await middleware.publish_scope(publish, SimpleNamespace())  # type: ignore[arg-type]

    @contextmanager
    def _hold(self, message: Any, seconds: float = 0) -> Iterator[None]:
        self.held += 1
        self.held_for = seconds
        try:
            yield
        finally:
            self.held -= 1

    async def _bury(self, letter: DeadLetter) -> None:
        self.buried.append(letter)


async def returns_at_once(message: Any) -> str:
    return "result"


def message(number: int = 0, decode: Any = None) -> Any:
    return SimpleNamespace(
        message_id=str(number), body=number, committed=None, decode=decode or AsyncMock()
    )


def batch(size: int) -> Any:
    each = [message(number) for number in range(size)]
    return SimpleNamespace(message_id="batch", body=each, committed=None, decode=AsyncMock())


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between deliveries, without their jitter, which take no time."""
    found: list[float] = []

    async def sleep(seconds: float) -> None:
        if seconds:
            found.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    return found


async def test_what_cannot_be_read_is_not_tried_again() -> None:
    bench = Bench()
    handler = AsyncMock()
    unreadable = message(decode=AsyncMock(side_effect=ValueError("not JSON")))
    with pytest.raises(RejectMessage):
        await bench.handle(handler, unreadable)
    handler.assert_not_called()
    ((letter),) = bench.buried
    assert (str(letter.error), letter.attempts) == ("not JSON", 1)


async def test_a_handler_that_fails_twice_succeeds_at_last() -> None:
    bench, outcomes = Bench(), iter([ValueError("one"), ValueError("two"), None])

    async def handler(message: Any) -> str:
        if error := next(outcomes):
            raise error
        return "done"

    assert await bench.handle(handler, message()) == "done"
    assert len(bench.retried) == 2
    assert not bench.buried


async def test_a_handler_that_hangs_is_given_up_after_its_attempts() -> None:
    bench, calls = Bench(), []

    async def handler(message: Any) -> None:
        calls.append(message)
        await asyncio.sleep(60)

    with pytest.raises(RejectMessage):
        await bench.handle(handler, message())
    assert len(calls) == 3
    ((letter),) = bench.buried
    assert isinstance(letter.error, TimeoutError)
    assert letter.attempts == 3


async def test_a_fault_of_the_broker_is_not_held_against_the_message(
    pauses: list[float],
) -> None:
    bench, calls = Bench(), []

    async def handler(message: Any) -> None:
        calls.append(message)
        raise BrokerAwayError

    with pytest.raises(BrokerAwayError):  # not acknowledged, so it comes again
        await bench.handle(handler, message())
    assert len(calls) == 1
    assert not bench.buried


async def test_a_result_that_cannot_be_published_has_its_message_buried_once() -> None:
    bench, published = Bench(), []

    async def publish(command: Any) -> None:
        published.append(command)
        raise ValueError("too large")

    with pytest.raises(RejectMessage):
        await bench.publish_result(publish, message(7))
    ((letter),) = bench.buried
    assert (letter.message.message_id, letter.attempts) == ("7", 1)
    assert len(published) == 1


async def test_a_result_that_the_broker_is_away_for_is_not_held_against_the_message(
    pauses: list[float],
) -> None:
    async def publish(command: Any) -> None:
        raise BrokerAwayError

    bench = Bench()
    for _ in range(5):
        with pytest.raises(BrokerAwayError):
            await bench.publish_result(publish, message())
    assert not bench.buried
    assert pauses == [1, 2, 4, 5, 5]  # it comes again, but does not spin
    assert not bench.postponed  # it was nobody's wish: the watchdog is to look at it


async def nack(message: Any) -> None:
    raise NackMessage


async def nack_itself(message: Any) -> str:
    message.committed = AckStatus.NACKED  # as `await message.nack()` does
    return "result"


@pytest.mark.parametrize("handler", [nack, nack_itself])
async def test_a_message_that_its_handler_wants_again_comes_after_growing_pauses(
    handler: Handler, pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench()
    for number in range(1, 6):
        with suppress(NackMessage):
            await bench.handle(handler, message())
        assert f"redelivery {number} in a row" in caplog.text
    assert pauses == [1, 2, 4, 5, 5]
    assert len(bench.postponed) == 5  # not stalled: it does what it is told
    await bench.handle(returns_at_once, message())
    with suppress(NackMessage):
        await bench.handle(handler, message())
    assert pauses[5:] == [1]


async def test_a_message_that_was_nacked_is_no_dead_letter_besides(pauses: list[float]) -> None:
    async def handler(message: Any) -> None:
        await nack_itself(message)
        raise LookupError

    bench = Bench()
    with pytest.raises(LookupError):
        await bench.handle(handler, message())
    assert not bench.buried
    assert pauses == [1]


async def test_a_message_is_in_hand_while_its_consumer_pauses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench, held = Bench(), []

    async def sleep(seconds: float) -> None:
        held.append((bench.held, seconds - bench.held_for))

    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(NackMessage):
        await bench.handle(nack, message())
    assert held == [(1, 0)]


@pytest.mark.parametrize("decision", [AckMessage, RejectMessage, SkipMessage, StopConsume])
async def test_a_message_that_does_not_come_again_is_not_waited_for(
    decision: type[Exception], pauses: list[float]
) -> None:
    async def decide(message: Any) -> None:
        raise decision

    with pytest.raises(decision):
        await Bench().handle(decide, message())
    assert not pauses


async def test_options_that_kafka_does_not_know_do_not_cost_the_message(
    pauses: list[float],
) -> None:
    async def decide(message: Any) -> None:
        raise NackMessage(requeue=True)

    with pytest.raises(NackMessage) as raised:
        await Bench().handle(decide, message())
    assert not raised.value.extra_options  # FastStream calls `message.nack(**extra_options)`


async def test_a_stop_does_not_wait_for_a_consumer_that_pauses() -> None:
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


async def test_an_error_that_came_out_of_a_future_leaves_nothing() -> None:
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
            raise BrokerAwayError from error

    bench = Bench()
    gc.disable()
    try:
        with patch("asyncio.sleep"), suppress(BrokerAwayError):
            await bench.handle(handler, message())
        assert not bodies
    finally:
        gc.enable()


async def test_one_bad_message_does_not_take_its_batch_along() -> None:
    bench, handled = Bench(), []

    async def handler(message: Any) -> None:
        for one in message.body if isinstance(message.body, list) else [message]:
            if one.body == 2:
                raise ValueError("bad")
            handled.append(one.body)

    with pytest.raises(RejectMessage):
        await bench.handle(handler, batch(5))
    assert [letter.message.message_id for letter in bench.buried] == ["2"]
    assert set(handled) == {0, 1, 3, 4}


async def test_a_batch_that_hangs_is_let_go_within_its_bound() -> None:
    bench, calls = Bench(timeout=0.02), []

    async def handler(message: Any) -> None:
        calls.append(message)
        await asyncio.sleep(60)

    started = asyncio.get_running_loop().time()
    with pytest.raises(RejectMessage):
        await bench.handle(handler, batch(100))
    took = asyncio.get_running_loop().time() - started

    # Each of 100 messages on its own would be 300 time-outs; the bound is 13 of them.
    assert bench.policy.bound(100) == pytest.approx(13 * 0.02)
    assert len(calls) <= 3 + retry.BATCH_TIMEOUTS + 1, took
    assert [letter.message.message_id for letter in bench.buried] == [str(n) for n in range(100)]
    assert "others of its batch" in str(bench.buried[-1].error)


@pytest.mark.parametrize("decision", [NackMessage, StopConsume, StopApplication])
async def test_a_message_of_a_failed_batch_that_is_to_come_again_does(
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


@pytest.mark.parametrize("how", [NackMessage, BrokerAwayError, "nack"])
async def test_a_batch_that_comes_again_has_no_dead_letters_yet(
    how: type[Exception] | str, pauses: list[float]
) -> None:
    bench, whole = Bench(), batch(3)

    async def handler(message: Any) -> None:
        if message.body != 1:
            raise ValueError("bad")
        if isinstance(how, str):
            whole.committed = AckStatus.NACKED  # as `nack()` of the batch that the handler is given
        else:
            raise how

    with nullcontext() if isinstance(how, str) else pytest.raises(how):
        await bench.handle(handler, whole)
    assert not bench.buried


async def test_the_errors_of_a_batch_leave_nothing() -> None:
    bench = Bench()

    async def handler(message: Any) -> None:
        raise BadMessageError

    gc.collect()
    gc.disable()
    try:
        with suppress(RejectMessage):
            await bench.handle(handler, batch(3))
        assert len(bench.buried) == 3
        bench.buried.clear()
        assert not BadMessageError.alive
    finally:
        gc.enable()


@pytest.mark.parametrize("decision", [AckMessage, RejectMessage, SkipMessage])
async def test_a_message_of_a_failed_batch_that_is_done_with_stops_nothing(
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
    assert not bench.buried


async def test_a_broker_that_is_away_amid_a_batch_has_it_delivered_again(
    pauses: list[float],
) -> None:
    bench = Bench()

    async def handler(message: Any) -> None:
        if isinstance(message.body, list):
            raise ValueError("one of them is bad")
        raise BrokerAwayError

    with pytest.raises(BrokerAwayError):
        await bench.handle(handler, batch(3))
    assert not bench.buried
