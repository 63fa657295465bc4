"""A few attempts with backoff and jitter, in process; then the dead letters."""

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

# Time-outs that the messages of a failed batch may use up, each handled on its own.
BATCH_TIMEOUTS = 10
# Before the same consumer takes messages that it did not acknowledge: doubled with each that
# follows another, up to the longest; with jitter.
REDELIVERY_PAUSE_SECONDS = 1.0
LONGEST_REDELIVERY_PAUSE_SECONDS = 5.0


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long a message is tried.

    Attributes:
        attempts: In all, the first included.
        backoff: Seconds before the second attempt, doubled for each further one. The real pause is
            drawn between half of that and the whole.
        timeout: Seconds for one attempt.
    """

    attempts: int = 3
    backoff: float = 0.2
    timeout: float = 10.0

    def longest(self, messages: int) -> float:
        """Seconds that a message, or a batch of so many, may take at most.

        Publishing dead letters comes on top, if the broker is slow to confirm them.
        """
        pauses = self.backoff * (2.0 ** (self.attempts - 1) - 1)
        batch = BATCH_TIMEOUTS if messages > 1 else 0
        return (self.attempts + batch) * self.timeout + pauses


class RetryMiddleware:
    """Retries in process, then sends a message to the dead letters.

    Put it last in the middlewares of FastStream's broker, after telemetry and metrics.

    Args:
        policy: How often and how long.
        messages: The broker's own way to read and send messages.
        tracer_provider: For the spans of further attempts. Default: the global one.
        metrics: Count retries and dead letters. Default: none.
        consumers: Whose consumers are not stalled while they retry. Default: nobody's.
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
        self.messages = messages
        self.tracer = trace.get_tracer(__name__, tracer_provider=tracer_provider)
        self.metrics = metrics
        self.consumers = consumers
        self.redeliveries: dict[Any, int] = {}
        """In a row, by FastStream's subscriber."""

    def __call__(self, msg: Any | None, /, *, context: ContextRepo) -> "_Attempts":
        return _Attempts(msg, shared=self, context=context)

    def busy(
        self, message: StreamMessage[Any], seconds: float | None = None
    ) -> AbstractContextManager[None]:
        """A context around what is done for a message, which may take so long."""
        if self.consumers is None:
            return nullcontext()
        longest = seconds or self.policy.longest(self.messages.count(message))
        return self.consumers.busy(self.messages.channel(message), longest)

    async def give_up(self, failed: FailedMessage) -> None:
        """Send a message to the dead letters. When that fails, it stays unacknowledged."""
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
            async with self._messages.in_hand(msg):
                result = await self._handle(call_next, msg)
        self._handled = True
        return result

    async def after_processed(
        self,
        exc_type: type[BaseException] | None = None,
        exc_val: BaseException | None = None,
        exc_tb: TracebackType | None = None,
    ) -> bool | None:
        """Pause before the message is given back to the broker, which delivers it again at once."""
        message, redeliveries = self._message, self._shared.redeliveries
        if message is None or not isinstance(exc_val, Exception | None):
            return False
        if (
            isinstance(exc_val, AckMessage | NackMessage | RejectMessage)
            and not self._messages.takes_options
        ):
            # With one of them FastStream's nack fails, and the message is skipped.
            exc_val.extra_options.clear()
        consumer = current_subscriber(self.context)
        decided = isinstance(exc_val, NackMessage) or message.committed is AckStatus.NACKED
        if decided or not isinstance(exc_val, IgnoredException | None):
            redeliveries[consumer] = in_a_row = redeliveries.get(consumer, 0) + 1
            await self._pause(message, in_a_row, exc_val)
            if decided and self._shared.consumers:
                self._shared.consumers.postponed(self._messages.channel(message))
        else:
            redeliveries.pop(consumer, None)
        return False

    async def _pause(
        self, message: StreamMessage[Any], in_a_row: int, error: Exception | None
    ) -> None:
        longest = LONGEST_REDELIVERY_PAUSE_SECONDS
        pause = min(REDELIVERY_PAUSE_SECONDS * 2 ** min(in_a_row - 1, 10), longest)
        pause *= random.uniform(0.75, 1)
        logger.warning(
            "Message %s is not acknowledged and comes again in %.1f s, redelivery %d in a row: %s",
            message.message_id, pause, in_a_row,
            "nacked" if error is None else f"{type(error).__name__}: {describe(error)}",
        )  # fmt: skip
        with self._shared.busy(message, pause):
            async with self._messages.in_hand(message):
                await asyncio.sleep(pause)

    async def publish_scope(
        self, call_next: Callable[[PublishCommand], Awaitable[Any]], cmd: PublishCommand
    ) -> Any:
        """Publish what a handler returned, which FastStream does when `consume_scope` is over.

        A failure here would have the message redelivered without end.
        """
        if self._message is None or not self._handled:  # published by a handler, or by nobody's
            return await call_next(cmd)
        try:
            async with self._messages.confirmation():
                return await call_next(cmd)
        except Unavailable as error:
            _release(error)
            raise self._messages.again(error)  # noqa: B904 (the error itself, or because of it)
        except Exception as error:
            _release(error)
            for message in self._messages.singles(self._message):
                await self._shared.give_up(FailedMessage(message, error, self._made))
            raise self._messages.settled() from error

    async def _handle(
        self, call_next: Callable[[Any], Awaitable[Any]], msg: StreamMessage[Any]
    ) -> Any:
        try:
            return await self._attempt(call_next, msg)
        except IgnoredException:
            raise
        except Unavailable as error:
            raise self._messages.again(error)  # noqa: B904 (the error itself, or because of it)
        except Exception as error:
            if msg.committed is AckStatus.NACKED:
                raise  # its handler has nacked it: it is redelivered
            singles = self._messages.singles(msg)
            if len(singles) == 1 or self._has_publisher():
                for one in singles:
                    await self._shared.give_up(FailedMessage(one, error, self._made))
            elif not await self._one_by_one(call_next, singles):
                return None
            # The dead letter is safe: acknowledge, with the error for telemetry and the log.
            raise self._messages.settled() from error

    def _has_publisher(self) -> bool:
        """Whether what a handler returns is published: that for one message of a batch is not.

        So such a batch stays together, and each of its messages is a dead letter. A `Service`
        refuses such a handler before it starts.
        """
        calls = getattr(current_subscriber(self.context), "calls", ())
        return any(publishers_of(call.handler) for call in calls)

    async def _one_by_one(
        self, call_next: Callable[[Any], Awaitable[Any]], messages: list[StreamMessage[Any]]
    ) -> int:
        """Handle a failed batch's messages each on its own; return how many failed.

        Handlers see a message again that they had handled as part of the batch: they must be
        idempotent, as with any at-least-once delivery. Those that fail go to the dead letters at
        the end, and none does if the batch is redelivered: each delivery would send the same ones.
        """
        failed: list[FailedMessage] = []
        try:
            await self._try_each(call_next, messages, failed)
            if self._message and self._message.committed is AckStatus.NACKED:
                return 0  # a handler has nacked it: the batch is redelivered
            for one in failed:
                await self._shared.give_up(one)
            return len(failed)
        finally:
            failed.clear()  # a frame in the traceback of each error has this list: a cycle

    async def _try_each(
        self,
        call_next: Callable[[Any], Awaitable[Any]],
        messages: list[StreamMessage[Any]],
        failed: list[FailedMessage],
    ) -> None:
        """Handle messages one by one, and add those that fail to `failed`.

        Those that are left when the batch's time is used up fail, so that a handler that hangs does
        not hold the partitions for an hour.
        """
        ends = time.monotonic() + BATCH_TIMEOUTS * self._policy.timeout
        for message in messages:
            left = ends - time.monotonic()
            try:
                if left <= 0:
                    raise TimeoutError("others of its batch used up the time to handle it")
                async with self._time_limit(left):
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
        """Call the handler until it succeeds, or the policy allows no further attempt."""
        policy = self._policy
        self._made = 1
        await msg.decode()  # outside of the attempts: what cannot be read now never will be
        for number in range(1, policy.attempts + 1):
            self._made = number
            try:
                with self._span(number):
                    async with self._time_limit(policy.timeout):
                        return await call_next(msg)
            except IgnoredException:
                raise
            except Unavailable as error:
                _release(error)
                raise
            except Exception as error:
                _release(error)
                if number == policy.attempts or is_about_message(error):
                    error.add_note(f"given up after attempt {number} of {policy.attempts}")
                    raise
                pause = policy.backoff * 2 ** (number - 1) * random.uniform(0.5, 1)
                logger.warning(
                    "Attempt %d of %d failed, the next follows in %.2f s: %s: %s",
                    number, policy.attempts, pause, type(error).__name__, describe(error),
                )  # fmt: skip
                record(trace.get_current_span(), error, {"retry.attempt": number})
                await asyncio.sleep(pause)
                if self._shared.metrics:
                    self._shared.metrics.retry(self._messages.channel(msg))
        raise AssertionError  # the loop returns or raises

    def _time_limit(self, seconds: float) -> TimeLimit:
        def warn() -> None:
            subscriber = current_subscriber(self.context)
            logger.warning(
                "Handler %s has not ended within %g s. It runs in a thread, which cannot be"
                " cancelled: its message waits for it, and so does any further attempt.",
                ", ".join(call.name for call in getattr(subscriber, "calls", ())), seconds,
            )  # fmt: skip

        return TimeLimit(seconds, warn)

    @contextmanager
    def _span(self, attempt: int) -> Iterator[None]:
        """A span for each further attempt; the first is the process span itself."""
        if attempt == 1:
            yield
            return
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
        except BaseException as error:  # also where the attempt is cancelled
            fail(span, error)
            raise
        finally:
            end_span(span)


def _release(error: BaseException | None) -> None:
    """Free an error that came out of a future as soon as it is not needed any more.

    The future has the error, whose traceback has the frame that awaited the future, as a variable:
    a cycle, in anyio and in aiokafka, that would keep the message until the garbage collector runs.
    """
    for _ in range(MAX_CHAIN):
        if error is None:
            return
        for frame, _ in traceback.walk_tb(error.__traceback__):
            # Not `f_locals`, which may keep a copy of the variables, and so make a cycle itself.
            if any(_came_with(one, error) for one in gc.get_referents(frame)):
                with suppress(RuntimeError):  # it still runs
                    frame.clear()
        error = error.__cause__ or error.__context__


def _came_with(one: object, error: BaseException) -> bool:
    """Whether it is a future that had this error."""
    if not isinstance(one, asyncio.Future) or not one.done() or one.cancelled():
        return False
    return one.exception() is error
