"""Retries a message in process, with backoff and jitter, then sends it to the dead letters."""

import asyncio
import gc
import logging
import random
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from faststream import BaseMiddleware, ContextRepo, PublishCommand
from faststream.exceptions import (
    AckMessage,
    IgnoredException,
    NackMessage,
    RejectMessage,
    SkipMessage,
)
from faststream.message import AckStatus, StreamMessage
from opentelemetry import trace
from opentelemetry.trace import TracerProvider

from ..telemetry.errors import MAX_CHAIN, describe, fail, record
from ..telemetry.spans import end_span, start_span
from ._faststream import current_subscriber, publishers_of
from .broker import Messages, Unavailable
from .consumers import Consumers
from .dead_letters.sending import FailedMessage, send_to_dead_letters
from .prometheus import MessagingMetrics
from .time_limit import TimeLimit
from .validation import is_about_message

logger = logging.getLogger(__name__)

# The time for handling the messages of a failed batch one by one, as a multiple of the time-out.
BATCH_TIMEOUTS = 10
# The pause before a redelivery. It doubles with each redelivery in a row, up to the longest.
REDELIVERY_PAUSE_SECONDS = 1.0
LONGEST_REDELIVERY_PAUSE_SECONDS = 5.0


@dataclass(frozen=True)
class RetryPolicy:
    """How often, and for how long, a handler may try a message.

    Attributes:
        attempts: The total number of attempts, including the first.
        backoff: Seconds before the second attempt. It doubles before each further attempt. The
            actual pause is random, between half of it and all of it.
        timeout: Seconds for one attempt.
    """

    attempts: int = 3
    backoff: float = 0.2
    timeout: float = 10.0

    def longest(self, messages: int) -> float:
        """The longest time in seconds for a message, or for a batch of this many messages.

        Dead letters take additional time if the broker is slow to confirm them.
        """
        pauses = self.backoff * (2.0 ** (self.attempts - 1) - 1)
        batch = BATCH_TIMEOUTS if messages > 1 else 0
        return (self.attempts + batch) * self.timeout + pauses


class RetryMiddleware:
    """Retries in process, then sends a message to the dead letters.

    Put it last in the middlewares of FastStream's broker, after telemetry and metrics.

    Args:
        policy: How often, and for how long.
        messages: Reads and sends the broker's messages.
        tracer_provider: For the spans of retries. Default: the global one.
        metrics: Counts retries and dead letters. Default: no counting.
        consumers: Told that a retrying consumer is not stalled. Default: no such check.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        messages: Messages,
        *,
        tracer_provider: TracerProvider | None = None,
        metrics: MessagingMetrics | None = None,
        consumers: Consumers | None = None,
    ) -> None:
        self.policy = policy
        self._longest = policy.longest(1)
        self.messages = messages
        self.tracer = trace.get_tracer(__name__, tracer_provider=tracer_provider)
        self.metrics = metrics
        self.consumers = consumers
        self.redeliveries: dict[Any, int] = {}
        """Number of redeliveries in a row, by FastStream subscriber."""

    def __call__(self, msg: Any | None, /, *, context: ContextRepo) -> "_Attempts":
        return _Attempts(msg, shared=self, context=context)

    def busy(
        self, message: StreamMessage[Any], seconds: float | None = None
    ) -> AbstractContextManager[None]:
        """A context around work for a message, which may take this long."""
        if self.consumers is None:
            return nullcontext()
        count = self.messages.count(message)
        longest = seconds or (self._longest if count == 1 else self.policy.longest(count))
        return self.consumers.busy(self.messages.channel(message), longest)

    async def give_up(self, failed: FailedMessage) -> None:
        """Send a message to the dead letters. If that raises, the message is not acknowledged."""
        raw = self.messages.raw(failed.message)
        logger.error(
            "Message %s of %s goes to the dead letters after attempt %d: %s: %s",
            raw.id, raw.channel, failed.attempts,
            type(failed.error).__name__, describe(failed.error),
        )  # fmt: skip
        counted = (
            self.metrics.dead_letter(
                self.messages.channel(failed.message), failed.error, failed.message.headers
            )
            if self.metrics
            else nullcontext()
        )
        with counted:
            await send_to_dead_letters(self.messages, failed)


class _Attempts(BaseMiddleware[PublishCommand, Any]):
    def __init__(
        self, msg: Any | None, /, *, shared: RetryMiddleware, context: ContextRepo
    ) -> None:
        super().__init__(msg, context=context)
        self._shared = shared
        self._policy = shared.policy
        self._messages = shared.messages
        self._made = 0
        self._message: StreamMessage[Any] | None = None
        self._handled = False

    async def consume_scope(
        self, call_next: Callable[[Any], Awaitable[Any]], msg: StreamMessage[Any]
    ) -> Any:
        self._message = msg
        with self._shared.busy(msg):
            async with self._messages.in_flight(msg):
                result = await self._handle(call_next, msg)
        self._handled = True
        return result

    async def after_processed(
        self,
        exc_type: type[BaseException] | None = None,
        exc_val: BaseException | None = None,
        exc_tb: TracebackType | None = None,
    ) -> bool | None:
        """Pause before a message goes back to the broker, which redelivers it at once."""
        message, redeliveries = self._message, self._shared.redeliveries
        if message is None or not isinstance(exc_val, Exception | None):
            return False
        if (
            isinstance(exc_val, AckMessage | NackMessage | RejectMessage)
            and not self._messages.takes_options
        ):
            # With an unknown option FastStream's nack would raise, and FastStream would skip the
            # message.
            exc_val.extra_options.clear()
        decided = isinstance(exc_val, NackMessage) or message.committed is AckStatus.NACKED
        if decided or not isinstance(exc_val, IgnoredException | None):
            consumer = current_subscriber(self.context)
            redeliveries[consumer] = in_a_row = redeliveries.get(consumer, 0) + 1
            await self._pause(message, in_a_row, exc_val)
            if decided and self._shared.consumers:
                self._shared.consumers.postponed(self._messages.channel(message))
        elif redeliveries:
            redeliveries.pop(current_subscriber(self.context), None)
        return False

    async def _pause(
        self, message: StreamMessage[Any], in_a_row: int, error: Exception | None
    ) -> None:
        longest = LONGEST_REDELIVERY_PAUSE_SECONDS
        pause = min(REDELIVERY_PAUSE_SECONDS * 2 ** min(in_a_row - 1, 10), longest)
        pause *= random.uniform(0.75, 1)
        logger.warning(
            "Message %s is not acknowledged: the broker redelivers it in %.1f s, redelivery %d in a"
            " row: %s",
            message.message_id, pause, in_a_row,
            "nacked" if error is None else f"{type(error).__name__}: {describe(error)}",
        )  # fmt: skip
        with self._shared.busy(message, pause):
            async with self._messages.in_flight(message):
                await asyncio.sleep(pause)

    async def publish_scope(
        self, call_next: Callable[[PublishCommand], Awaitable[Any]], cmd: PublishCommand
    ) -> Any:
        """Publish what a handler returned. FastStream does so after `consume_scope`.

        If the result cannot be published, the message goes to the dead letters: otherwise the
        broker would redeliver it without end.
        """
        if self._message is None or not self._handled:  # not a handler's result
            return await call_next(cmd)
        try:
            async with self._messages.confirmation():
                return await call_next(cmd)
        except Unavailable as error:
            _release(error)
            raise self._messages.redelivery(error)  # noqa: B904 (may be the error itself)
        except Exception as error:
            _release(error)
            for message in self._messages.singles(self._message):
                await self._shared.give_up(FailedMessage(message, error, self._made))
            raise self._messages.acknowledgement() from error

    async def _handle(
        self, call_next: Callable[[Any], Awaitable[Any]], msg: StreamMessage[Any]
    ) -> Any:
        try:
            return await self._attempt(call_next, msg)
        except SkipMessage:
            # FastStream does not: RabbitMQ and Kafka would wait for it, NATS deliver it again.
            await msg.ack()
            raise
        except IgnoredException:
            raise
        except Unavailable as error:
            raise self._messages.redelivery(error)  # noqa: B904 (may be the error itself)
        except Exception as error:
            if msg.committed is AckStatus.NACKED:
                raise  # the handler has nacked it: the broker redelivers it
            singles = self._messages.singles(msg)
            if len(singles) == 1 or self._has_publisher():
                for one in singles:
                    await self._shared.give_up(FailedMessage(one, error, self._made))
            elif not await self._one_by_one(call_next, singles):
                return None
            # The dead letter is stored: acknowledge, with the error for telemetry and the log.
            raise self._messages.acknowledgement() from error

    def _has_publisher(self) -> bool:
        """Whether the handler has a publisher.

        Then a failed batch is not handled message by message: the results would be lost. Each of
        its messages becomes a dead letter. A `Service` refuses such a batch handler at the start.
        """
        calls = getattr(current_subscriber(self.context), "calls", ())
        return any(publishers_of(call.handler) for call in calls)

    async def _one_by_one(
        self, call_next: Callable[[Any], Awaitable[Any]], messages: list[StreamMessage[Any]]
    ) -> int:
        """Handle the messages of a failed batch one by one. Returns how many failed.

        A handler sees messages again that it has handled as part of the batch. It must be
        idempotent, as with any at-least-once delivery. Failed messages go to the dead letters only
        at the end, and only if the batch is not redelivered: otherwise each delivery would send
        them again.
        """
        failed: list[FailedMessage] = []
        try:
            await self._try_each(call_next, messages, failed)
            if self._message and self._message.committed is AckStatus.NACKED:
                return 0  # the handler has nacked the batch: the broker redelivers it
            count = len(failed)
            while failed:  # a variable for each would be part of that cycle
                await self._shared.give_up(failed.pop(0))
            return count
        finally:
            failed.clear()  # breaks a cycle: each error's traceback refers to this frame

    async def _try_each(
        self,
        call_next: Callable[[Any], Awaitable[Any]],
        messages: list[StreamMessage[Any]],
        failed: list[FailedMessage],
    ) -> None:
        """Handle messages one by one, and add failed ones to `failed`.

        Messages that remain after the time-out of the batch also fail: otherwise a handler that
        hangs could block its channel for an hour.
        """
        ends = time.monotonic() + BATCH_TIMEOUTS * self._policy.timeout
        for message in messages:
            left = ends - time.monotonic()
            try:
                if left <= 0:
                    raise TimeoutError("the other messages of its batch used up the time")
                async with TimeLimit(left, self._warn_of_thread):
                    await self._attempt(call_next, message)
            except (AckMessage, RejectMessage, SkipMessage):
                continue
            except (IgnoredException, Unavailable):
                raise  # nothing of the batch is acknowledged
            except Exception as error:
                failed.append(FailedMessage(message, error, self._made))

    async def _attempt(
        self, call_next: Callable[[Any], Awaitable[Any]], msg: StreamMessage[Any]
    ) -> Any:
        """Call the handler until it succeeds, or until the policy allows no further attempt."""
        policy = self._policy
        self._made = 1
        await msg.decode()  # before the attempts: retrying would not make it readable
        for number in range(1, policy.attempts + 1):
            self._made = number
            try:
                with self._span(number):
                    async with TimeLimit(policy.timeout, self._warn_of_thread):
                        return await call_next(msg)
            except IgnoredException:
                raise
            except Unavailable as error:
                _release(error)
                raise
            except Exception as error:
                _release(error)
                if number == policy.attempts or is_about_message(error):
                    error.add_note(f"gave up after attempt {number} of {policy.attempts}")
                    raise
                pause = policy.backoff * 2 ** (number - 1) * random.uniform(0.5, 1)
                logger.warning(
                    "Attempt %d of %d failed, next attempt in %.2f s: %s: %s",
                    number, policy.attempts, pause, type(error).__name__, describe(error),
                )  # fmt: skip
                record(trace.get_current_span(), error, {"retry.attempt": number})
                await asyncio.sleep(pause)
                if self._shared.metrics:
                    self._shared.metrics.retry(self._messages.channel(msg))
        raise AssertionError  # the loop returns or raises

    def _warn_of_thread(self, seconds: float) -> None:
        subscriber = current_subscriber(self.context)
        logger.warning(
            "Handler %s has not ended within %g s. It runs in a thread, which cannot be cancelled:"
            " its message, and any further attempt, waits until it ends.",
            ", ".join(call.name for call in getattr(subscriber, "calls", ())), seconds,
        )  # fmt: skip

    def _span(self, attempt: int) -> AbstractContextManager[None]:
        """A span for an attempt. The first attempt has none: the process span shows it."""
        return nullcontext() if attempt == 1 else self._retry_span(attempt)

    @contextmanager
    def _retry_span(self, attempt: int) -> Iterator[None]:
        process = trace.get_current_span()
        name = getattr(process, "name", "process message").partition(" ")[2]
        span = start_span(
            self._shared.tracer, f"retry {name}", attributes={"retry.attempt": attempt}
        )
        try:
            with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                yield
        except IgnoredException:
            raise
        except BaseException as error:  # also if the attempt is cancelled
            fail(span, error)
            raise
        finally:
            end_span(span)


def _release(error: BaseException | None) -> None:
    """Break the reference cycle of an error that a future raised, in anyio or in aiokafka.

    The future refers to the error, the error's traceback to the frame that awaited the future, and
    the frame to the future. Otherwise the message stays in memory until the garbage collector runs.
    """
    for _ in range(MAX_CHAIN):
        if error is None:
            return
        for frame, _ in traceback.walk_tb(error.__traceback__):
            # Not `f_locals`: it may store a copy of the variables, which would be another cycle.
            if any(_is_future_of(error, one) for one in gc.get_referents(frame)):
                with suppress(RuntimeError):  # the frame still runs
                    frame.clear()
        error = error.__cause__ or error.__context__


def _is_future_of(error: BaseException, one: object) -> bool:
    """Whether an object is a future that failed with this error."""
    if not isinstance(one, asyncio.Future) or not one.done() or one.cancelled():
        return False
    return one.exception() is error
