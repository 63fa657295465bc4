"""A few attempts with backoff and jitter, in process; then the dead letters."""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass
from typing import Any

from fast_depends.exceptions import ValidationError as HandlerValidationError
from faststream import BaseMiddleware, ContextRepo, PublishCommand
from faststream.exceptions import AckMessage, IgnoredException, RejectMessage, SkipMessage
from faststream.message import StreamMessage
from opentelemetry import trace
from pydantic import ValidationError

from .telemetry.errors import describe, fail, record

logger = logging.getLogger(__name__)

# The message itself is wrong: no further attempt can mend it.
PERMANENT = (HandlerValidationError, ValidationError)
# Time-outs that the messages of a failed batch may use up, each handled on its own.
BATCH_TIMEOUTS = 10
REDELIVERY_PAUSE_SECONDS = 1.0


@dataclass(frozen=True)
class DeadLetter:
    """A message that was given up: why, and after how many attempts."""

    message: StreamMessage[Any]
    error: Exception
    attempts: int


@dataclass(frozen=True)
class RetryPolicy:
    """How to retry, and what the broker has to do about what is beyond it.

    Attributes:
        attempts: In all, the first included.
        backoff: Seconds before the second attempt, doubled for each further one. The real pause is
            drawn between half of that and the whole.
        timeout: Seconds for one attempt.
        bury: Publishes a dead letter. When it fails, the message stays unacknowledged.
        redeliver: An error of the broker's, not the message's, which is left to be delivered again.
        confirmation: A context around a publication, which raises `redeliver` for such errors.
        retried: Is told of each further attempt.
        holding: A context around all that is done for a message.
        singles: Takes a batch apart, so that one bad message does not take the others along.
    """

    attempts: int
    backoff: float
    timeout: float
    bury: Callable[[DeadLetter], Awaitable[object]]
    redeliver: type[Exception]
    confirmation: Callable[[], AbstractAsyncContextManager[None]]
    holding: Callable[[StreamMessage[Any]], AbstractContextManager[None]]
    retried: Callable[[StreamMessage[Any]], object]
    singles: Callable[[StreamMessage[Any]], list[StreamMessage[Any]]]

    def __call__(self, msg: Any | None, /, *, context: ContextRepo) -> "_Attempts":
        return _Attempts(msg, policy=self, context=context)

    def bound(self, messages: int) -> float:
        """Seconds for which a message, or a batch of so many, may hold its partition at most.

        Publishing dead letters comes on top, if the broker is slow to confirm them.
        """
        pauses = self.backoff * (2.0 ** (self.attempts - 1) - 1)
        batch = BATCH_TIMEOUTS if messages > 1 else 0
        return (self.attempts + batch) * self.timeout + pauses


class _Attempts(BaseMiddleware[PublishCommand, Any]):
    def __init__(self, msg: Any | None, /, *, policy: RetryPolicy, context: ContextRepo) -> None:
        super().__init__(msg, context=context)
        self._policy = policy
        self._made = 0
        self._handled: StreamMessage[Any] | None = None

    async def consume_scope(
        self, call_next: Callable[[Any], Awaitable[Any]], msg: StreamMessage[Any]
    ) -> Any:
        with self._policy.holding(msg):
            async with _unhurried():
                result = await self._handle(call_next, msg)
        self._handled = msg
        return result

    async def publish_scope(
        self, call_next: Callable[[PublishCommand], Awaitable[Any]], cmd: PublishCommand
    ) -> Any:
        """Publish what a handler returned, which FastStream does when `consume_scope` is over.

        What fails here would have the message read again without end.
        """
        policy = self._policy
        if self._handled is None:  # published by a handler, or by nobody's
            return await call_next(cmd)
        async with _unhurried():
            try:
                async with policy.confirmation():
                    return await call_next(cmd)
            except policy.redeliver:
                raise
            except Exception as error:
                for message in policy.singles(self._handled):
                    await self._bury(message, error)
                raise RejectMessage from error

    async def _handle(
        self, call_next: Callable[[Any], Awaitable[Any]], msg: StreamMessage[Any]
    ) -> Any:
        try:
            return await self._attempt(call_next, msg)
        except (IgnoredException, self._policy.redeliver):
            raise
        except Exception as error:
            singles = self._policy.singles(msg)
            if len(singles) == 1:
                await self._bury(singles[0], error)
            elif not await self._one_by_one(call_next, singles):
                return None
            # The dead letter is safe: acknowledge, and tell telemetry and the log what happened.
            raise RejectMessage from error

    async def _one_by_one(
        self, call_next: Callable[[Any], Awaitable[Any]], messages: list[StreamMessage[Any]]
    ) -> int:
        """Handle a failed batch's messages each on its own; return how many were buried.

        Handlers see a message again that they had handled as part of the batch: they must be
        idempotent, as with any at-least-once delivery. Those that are left when the batch's time is
        used up are buried, so that a handler that hangs does not hold the partitions for an hour.
        """
        ends = time.monotonic() + BATCH_TIMEOUTS * self._policy.timeout
        buried = 0
        for message in messages:
            left = ends - time.monotonic()
            try:
                if left <= 0:
                    raise TimeoutError("others of its batch used up the time to handle it")
                async with asyncio.timeout(left):
                    await self._attempt(call_next, message)
            except (AckMessage, RejectMessage, SkipMessage):
                continue
            except (IgnoredException, self._policy.redeliver):
                raise  # nothing of the batch is acknowledged
            except Exception as error:
                await self._bury(message, error)
                buried += 1
        return buried

    async def _attempt(
        self, call_next: Callable[[Any], Awaitable[Any]], msg: StreamMessage[Any]
    ) -> Any:
        """Call the handler until it succeeds or the policy says that it is enough."""
        policy = self._policy
        self._made = 1
        await msg.decode()  # outside of the attempts: what cannot be read now never will be
        for number in range(1, policy.attempts + 1):
            self._made = number
            try:
                with _span(number):
                    async with asyncio.timeout(policy.timeout):
                        return await call_next(msg)
            except (IgnoredException, policy.redeliver):
                raise
            except Exception as error:
                if number == policy.attempts or isinstance(error, PERMANENT):
                    error.add_note(f"given up after attempt {number} of {policy.attempts}")
                    raise
                pause = policy.backoff * 2 ** (number - 1) * random.uniform(0.5, 1)
                logger.warning(
                    "Attempt %d of %d failed, the next follows in %.2f s: %s: %s",
                    number, policy.attempts, pause, type(error).__name__, describe(error),
                )  # fmt: skip
                record(trace.get_current_span(), error, {"retry.attempt": number})
                await asyncio.sleep(pause)
                policy.retried(msg)
        raise AssertionError  # the loop returns or raises

    async def _bury(self, message: StreamMessage[Any], error: Exception) -> None:
        logger.error(
            "Message %s goes to the dead letters after attempt %d: %s: %s",
            message.message_id, self._made, type(error).__name__, describe(error),
        )  # fmt: skip
        await self._policy.bury(DeadLetter(message, error, self._made))


@asynccontextmanager
async def _unhurried() -> AsyncIterator[None]:
    """Pause before an error that leaves the message unacknowledged.

    The broker is away, or takes no dead letter. The message comes again at once: it must not spin.
    """
    try:
        yield
    except IgnoredException:
        raise
    except Exception:
        await asyncio.sleep(REDELIVERY_PAUSE_SECONDS)
        raise


@contextmanager
def _span(attempt: int) -> Iterator[None]:
    """A span for each further attempt; the first is the process span itself."""
    if attempt == 1:
        yield
        return
    process = trace.get_current_span()
    name = getattr(process, "name", "process message").partition(" ")[2]
    with trace.get_tracer(__name__).start_as_current_span(
        f"retry {name}",
        attributes={"retry.attempt": attempt},
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield
        except IgnoredException:
            raise
        except Exception as error:
            fail(span, error)
            raise
