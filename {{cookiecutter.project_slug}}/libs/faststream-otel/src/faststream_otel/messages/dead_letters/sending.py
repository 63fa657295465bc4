"""Sends a message to the dead letters, as much of it as their channel takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from faststream.message import StreamMessage

from ...telemetry.errors import describe, error_type
from ..broker import Messages, Raw, TooLarge
from . import DEAD_LETTERS
from .dead_letter import CAN_BE_CUT
from .headers import (
    ATTEMPTS,
    BAGGAGE,
    BODY_SIZE,
    CHANNEL,
    CONTENT_TYPE,
    CORRELATION_ID,
    ERROR_TYPE,
    HEADERS,
    MESSAGE_ID,
    PREFIX,
    REASON,
    TOMBSTONE,
    TRUNCATED,
    as_text,
    encoded,
    of_message,
    to_json,
    without_context,
)

MAX_OWN_BYTES = 16_384
"""Bytes of the message's own headers, and of its key, that are kept when something is cut."""


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
    headers = headers_of(failed, raw)
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


def headers_of(failed: FailedMessage, raw: Raw) -> dict[str, str]:
    """The headers of a dead letter: the message's own, and what happened to it."""
    own = without_context(raw.headers)
    # In the order in which FastStream publishes them.
    text = {CONTENT_TYPE: "", CORRELATION_ID: failed.message.correlation_id or ""} | as_text(own)
    text = {name: value for name, value in text.items() if not name.startswith(PREFIX)}
    carried = as_text(raw.headers).get(BAGGAGE)
    return {
        **text,
        # The current context has none for a message of a batch.
        **({BAGGAGE: carried} if carried else {}),
        CHANNEL: raw.channel,
        MESSAGE_ID: raw.id,
        ATTEMPTS: str(failed.attempts),
        ERROR_TYPE: error_type(failed.error),
        REASON: describe(failed.error),
        **({TOMBSTONE: "true"} if raw.body is None else {}),
        **({} if of_message(encoded(text)) == own else {HEADERS: to_json(own)}),
    }


def cut(
    key: bytes | None, body: bytes, headers: Mapping[str, str], limit: int
) -> tuple[bytes | None, bytes, dict[str, str]]:
    """Cut a dead letter to a size. What says why it failed, and where it came from, is kept.

    The key, and each header, is kept whole or left out: `HEADERS` first, then the shortest. The
    body is cut at its end.

    Args:
        key: The message's.
        body: The message's.
        headers: As `headers_of` makes them.
        limit: Bytes for key, body and the message's own headers. Those that say what happened to
            it take up to 10 KB more.
    """
    own = {
        name: value
        for name, value in headers.items()
        if name == HEADERS or not name.startswith(PREFIX)
    }
    kept = {name: value for name, value in headers.items() if name not in own}
    room = min(MAX_OWN_BYTES, limit)
    left = limit
    whole = []
    if len(key or b"") <= room:
        whole.append("key")
        left -= len(key or b"")
    else:
        key = None
    needed = own.keys() & {HEADERS} or {*own}
    for name, value in sorted(own.items(), key=lambda one: (one[0] != HEADERS, _size(one))):
        if _size((name, value)) <= min(room, left):
            kept[name] = value
            room -= _size((name, value))
            left -= _size((name, value))
    if needed <= kept.keys():
        whole.append("headers")
    if len(body) <= left:
        whole.append("body")
    truncated = ",".join(one for one in CAN_BE_CUT if one not in whole)
    return key, body[:left], kept | {TRUNCATED: truncated, BODY_SIZE: str(len(body))}


def _size(header: tuple[str, str]) -> int:
    return sum(len(text.encode()) for text in header)
