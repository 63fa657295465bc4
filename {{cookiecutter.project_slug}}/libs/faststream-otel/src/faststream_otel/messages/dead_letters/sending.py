"""Sends a message to the dead letters, as much of it as their channel takes."""

from dataclasses import dataclass
from typing import Any

from faststream.message import StreamMessage

from ..broker import Messages, TooLarge
from . import DEAD_LETTERS
from .letter import CORRELATION_ID, cut, headers_of


@dataclass(frozen=True)
class FailedMessage:
    """A message that no attempt could handle: why, and after how many attempts."""

    message: StreamMessage[Any]
    error: Exception
    attempts: int


async def send_to_dead_letters(messages: Messages, failed: FailedMessage) -> None:
    """Publish a dead letter.

    A message that was compressed may be any size, and headers that are not text are stored twice:
    what is too large is cut.

    Raises:
        Unavailable: The broker did not confirm it.
    """
    raw = messages.raw(failed.message)
    headers = headers_of(failed.message, failed.error, failed.attempts, raw)
    whole = kept = (raw.key, raw.body or b"", headers)
    for size in messages.dead_letter_sizes:
        try:
            return await _send(messages, *kept)
        except TooLarge:
            kept = cut(*whole, size)
    return await _send(messages, *kept)


async def _send(
    messages: Messages, key: bytes | None, body: bytes, headers: dict[str, str]
) -> None:
    await messages.send(
        DEAD_LETTERS,
        body=body,
        key=key,
        headers=headers,
        correlation_id=headers.get(CORRELATION_ID),
    )
