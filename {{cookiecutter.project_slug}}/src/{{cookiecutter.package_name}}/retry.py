"""A few attempts with backoff and jitter, in process; then the dead letters."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from fast_depends.exceptions import ValidationError as HandlerValidationError
from faststream import BaseMiddleware, ContextRepo, PublishCommand
from faststream.exceptions import IgnoredException, RejectMessage
from faststream.message import StreamMessage
from opentelemetry import trace
from opentelemetry.trace import Span
from pydantic import ValidationError

logger = logging.getLogger(__name__)

# The message itself is wrong: no further attempt can mend it.
PERMANENT = (HandlerValidationError, ValidationError, UnicodeDecodeError)


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
        retried: Is told of each further attempt.
        singles: Takes a batch apart, so that one bad message does not take the others along.
    """

    attempts: int
    backoff: float
    timeout: float
    bury: Callable[[DeadLetter], Awaitable[object]]
    retried: Callable[[StreamMessage[Any]], object]
    singles: Callable[[StreamMessage[Any]], list[StreamMessage[Any]]]

    def __call__(self, msg: Any | None, /, *, context: ContextRepo) -> "_Attempts":
        return _Attempts(msg, policy=self, context=context)


class _Attempts(BaseMiddleware[PublishCommand, Any]):
    def __init__(self, msg: Any | None, /, *, policy: RetryPolicy, context: ContextRepo) -> None:
        super().__init__(msg, context=context)
        self._policy = policy

    async def consume_scope(
        self, call_next: Callable[[Any], Awaitable[Any]], msg: StreamMessage[Any]
    ) -> Any:
        try:
            return await self._attempt(call_next, msg)
        except IgnoredException:
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
        idempotent, as with any at-least-once delivery.
        """
        buried = 0
        for message in messages:
            try:
                await self._attempt(call_next, message)
            except IgnoredException:
                continue
            except Exception as error:
                await self._bury(message, error)
                buried += 1
        return buried

    async def _attempt(
        self, call_next: Callable[[Any], Awaitable[Any]], msg: StreamMessage[Any]
    ) -> Any:
        """Call the handler until it succeeds or the policy says that it is enough."""
        policy = self._policy
        for number in range(1, policy.attempts + 1):
            try:
                with _span(number):
                    async with asyncio.timeout(policy.timeout):
                        return await call_next(msg)
            except IgnoredException:
                raise
            except Exception as error:
                if number == policy.attempts or isinstance(error, PERMANENT):
                    error.add_note(f"given up after attempt {number} of {policy.attempts}")
                    raise
                pause = policy.backoff * 2 ** (number - 1) * random.uniform(0.5, 1)
                logger.warning(
                    "Attempt %d of %d failed, the next follows in %.2f s: %s: %s",
                    number, policy.attempts, pause, type(error).__name__, error,
                )  # fmt: skip
                trace.get_current_span().record_exception(error, {"retry.attempt": number})
                await asyncio.sleep(pause)
                policy.retried(msg)
        raise AssertionError  # the loop returns or raises

    async def _bury(self, message: StreamMessage[Any], error: Exception) -> None:
        attempts = 1 if isinstance(error, PERMANENT) else self._policy.attempts
        logger.error(
            "Message %s goes to the dead letters after attempt %d: %s: %s",
            message.message_id, attempts, type(error).__name__, error,
        )  # fmt: skip
        await self._policy.bury(DeadLetter(message, error, attempts))


def _span(attempt: int) -> AbstractContextManager[Span | None]:
    """A span for each further attempt; the first is the process span itself."""
    if attempt == 1:
        return nullcontext()
    process = trace.get_current_span()
    name = getattr(process, "name", "process message").partition(" ")[2]
    return trace.get_tracer(__name__).start_as_current_span(
        f"retry {name}", attributes={"retry.attempt": attempt}
    )
