"""What the retry policy does with a failure: whose fault it is, and how long it may take."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

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

from {{ cookiecutter.package_name }} import retry
from {{ cookiecutter.package_name }}.retry import DeadLetter, RetryPolicy

Handler = Callable[[Any], Awaitable[Any]]


class BrokerAwayError(Exception):
    pass


class Bench:
    """A policy, and what it buried."""

    def __init__(self, **options: Any) -> None:
        self.buried: list[DeadLetter] = []
        self.retried: list[Any] = []
        settings = {"attempts": 3, "backoff": 0.0, "timeout": 0.05} | options
        self.policy = RetryPolicy(
            **settings,
            bury=self._bury,
            redeliver=BrokerAwayError,
            confirmation=nullcontext,
            holding=lambda message: nullcontext(),
            retried=self.retried.append,
            singles=lambda message: message.body if isinstance(message.body, list) else [message],
        )

    async def handle(self, handler: Handler, message: Any) -> Any:
        middleware = self.policy(None, context=ContextRepo())
        return await middleware.consume_scope(handler, message)

    async def publish_result(self, publish: Handler, message: Any) -> Any:
        """As FastStream does with what a handler of this message returned."""
        middleware = self.policy(message, context=ContextRepo())
        await middleware.consume_scope(returns_at_once, message)
        return await middleware.publish_scope(publish, SimpleNamespace())  # type: ignore[arg-type]

    async def _bury(self, letter: DeadLetter) -> None:
        self.buried.append(letter)


async def returns_at_once(message: Any) -> str:
    return "result"


def message(number: int = 0, decode: Any = None) -> Any:
    return SimpleNamespace(message_id=str(number), body=number, decode=decode or AsyncMock())


def batch(size: int) -> Any:
    each = [message(number) for number in range(size)]
    return SimpleNamespace(message_id="batch", body=each, decode=AsyncMock())


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
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retry, "REDELIVERY_PAUSE_SECONDS", 0)
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
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def publish(command: Any) -> None:
        raise BrokerAwayError

    monkeypatch.setattr(asyncio, "sleep", sleep)
    bench = Bench()
    with pytest.raises(BrokerAwayError):
        await bench.publish_result(publish, message())
    assert not bench.buried
    assert pauses == [retry.REDELIVERY_PAUSE_SECONDS]  # it comes again, but does not spin


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
    decision: type[BaseException],
) -> None:
    bench = Bench()

    async def handler(message: Any) -> None:
        if isinstance(message.body, list):
            raise ValueError("one of them is bad")
        if message.body == 1:
            raise decision

    with pytest.raises(decision):  # not acknowledged, none of the batch
        await bench.handle(handler, batch(3))


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
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retry, "REDELIVERY_PAUSE_SECONDS", 0)
    bench = Bench()

    async def handler(message: Any) -> None:
        if isinstance(message.body, list):
            raise ValueError("one of them is bad")
        raise BrokerAwayError

    with pytest.raises(BrokerAwayError):
        await bench.handle(handler, batch(3))
    assert not bench.buried
