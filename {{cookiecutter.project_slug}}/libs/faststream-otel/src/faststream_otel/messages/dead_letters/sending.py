"""Sends a message to the dead letters, and cuts it if it is too large for their channel."""

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
    decoded_headers,
    encoded_headers,
    of_message,
    to_json,
    without_context,
)

MAX_OWN_BYTES = 16_384
"""The limit in bytes for the key, and for all own headers of a message, if something is cut."""


@dataclass(frozen=True)
class FailedMessage:
    """A message that no attempt could handle, with the error and the number of attempts."""

    message: StreamMessage[Any]
    error: Exception
    attempts: int


async def send_to_dead_letters(messages: Messages, failed: FailedMessage) -> None:
    """Publish a dead letter.

    It may be larger than the message, which may have been compressed, and whose headers may be
    stored twice. Then it is cut.

    Raises:
        Unavailable: The broker did not confirm the dead letter.
    """
    raw = messages.raw(failed.message)
    headers = headers_of(failed, raw, any_headers=messages.any_headers)
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


def headers_of(failed: FailedMessage, raw: Raw, *, any_headers: bool = True) -> dict[str, str]:
    """The headers of a dead letter: those of the message, and those that say what happened.

    Args:
        any_headers: See `Messages`. Without it, those of the message are in `HEADERS` alone.
    """
    own = without_context(raw.headers)
    # The order in which FastStream publishes them.
    text = {CONTENT_TYPE: "", CORRELATION_ID: failed.message.correlation_id or ""}
    text |= decoded_headers(own)
    text = {name: value for name, value in text.items() if not name.startswith(PREFIX)}
    if not any_headers:
        text = {CORRELATION_ID: text[CORRELATION_ID]}
    carried = decoded_headers(raw.headers).get(BAGGAGE)
    return {
        **text,
        # The current context has no baggage for a message of a batch.
        **({BAGGAGE: carried} if carried else {}),
        CHANNEL: raw.channel,
        MESSAGE_ID: raw.id,
        ATTEMPTS: str(failed.attempts),
        ERROR_TYPE: error_type(failed.error),
        REASON: describe(failed.error),
        **({TOMBSTONE: "true"} if raw.body is None else {}),
        **({} if of_message(encoded_headers(text)) == own else {HEADERS: to_json(own)}),
    }


def cut(
    key: bytes | None, body: bytes, headers: Mapping[str, str], limit: int
) -> tuple[bytes | None, bytes, dict[str, str]]:
    """Cut a dead letter to a size. It keeps the headers that say why it failed, and where.

    The key and each own header of the message is kept whole or dropped. `HEADERS` has precedence,
    then the shortest. The end of the body is cut.

    Args:
        key: The message's key.
        body: The message's body.
        headers: The result of `headers_of`.
        limit: The limit in bytes for the key, the body and the message's own headers. The headers
            that say what happened take up to 10 KB more.
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
