"""A dead letter: the headers that a service gives it, and what is read from them again.

Everything in the topic is read with doubt: whoever may publish there may publish anything.
"""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, NamedTuple, Self

from faststream.message import StreamMessage
from opentelemetry import baggage
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext, format_trace_id, get_current_span

from ...telemetry.errors import describe, error_type
from ...telemetry.propagation import carries_context, extract
from ..broker import Headers, Raw
from ..prometheus import FLOW_STARTED

PREFIX = "dead-letter."
CHANNEL = f"{PREFIX}channel"
MESSAGE_ID = f"{PREFIX}message-id"
# Of dead letters that version 0.1 and earlier sent, in place of these two.
TOPIC = f"{PREFIX}topic"
PARTITION = f"{PREFIX}partition"
OFFSET = f"{PREFIX}offset"
ATTEMPTS = f"{PREFIX}attempts"
ERROR_TYPE = f"{PREFIX}error.type"
REASON = f"{PREFIX}reason"
TOMBSTONE = f"{PREFIX}tombstone"
TRUNCATED = f"{PREFIX}truncated"
BODY_SIZE = f"{PREFIX}body-size"
HEADERS = f"{PREFIX}headers"
"""The message's headers, exactly: JSON, `[[name, value], …]`, where a value is text, null or
`{"base64": …}`. Written where the other headers cannot hold them: text, each name once."""
CONTENT_TYPE = "content-type"
CORRELATION_ID = "correlation_id"
BAGGAGE = "baggage"

MAX_OWN_BYTES = 16_384
"""Of the message's own headers, and of its key, that a letter keeps which has to be cut."""

_CAN_BE_CUT = ("key", "headers", "body")
_NUMBER = re.compile("[0-9]{1,19}")
_POSITION = re.compile("([0-9]{1,9})/([0-9]{1,18})")


class Position(NamedTuple):
    """Where a letter is in the topic of dead letters: what it is named by, as in `0/12`."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}/{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError for what is no position."""
        found = _POSITION.fullmatch(text)
        if found is None:
            raise ValueError(f"{text} is no <partition>/<offset>, such as 0/12")
        return cls(int(found[1]), int(found[2]))


@dataclass(frozen=True)
class Record:
    """One record of the topic, whatever it is. `timestamp` is in Unix seconds."""

    position: Position
    timestamp: float
    key: bytes | None
    value: bytes | None
    headers: Headers

    @cached_property
    def text(self) -> Mapping[str, str]:
        """The headers as text: of a name that is repeated the last."""
        return _text(self.headers)


def headers_of(
    message: StreamMessage[Any], error: Exception, attempts: int, raw: Raw
) -> dict[str, str]:
    """The headers of a dead letter: the message's own, and what happened to it.

    Args:
        message: As FastStream has it.
        error: Over which it was given up.
        attempts: After how many.
        raw: As the broker has it.
    """
    own = _own(raw.headers)
    # In the order in which FastStream publishes them.
    text = {CONTENT_TYPE: "", CORRELATION_ID: message.correlation_id or ""} | _text(own)
    text = {name: value for name, value in text.items() if not name.startswith(PREFIX)}
    carried = _text(raw.headers).get(BAGGAGE)
    return {
        **text,
        # Replaced by that of the current context, which has none for a message of a batch.
        **({BAGGAGE: carried} if carried else {}),
        CHANNEL: raw.channel,
        MESSAGE_ID: raw.id,
        ATTEMPTS: str(attempts),
        ERROR_TYPE: error_type(error),
        REASON: describe(error),
        **({TOMBSTONE: "true"} if raw.body is None else {}),
        **({} if _told_by(encoded(text)) == own else {HEADERS: _as_json(own)}),
    }


def cut(
    key: bytes | None, body: bytes, headers: Mapping[str, str], most: int
) -> tuple[bytes | None, bytes, dict[str, str]]:
    """What of a letter fits into so many bytes, marked as cut; says why and where from in any case.

    A key is whole or not there, as is a header: what says all of them exactly, then the shortest.
    The body is cut at its end.

    Args:
        key: The message's.
        body: The message's.
        headers: As `headers_of` makes them.
        most: Bytes for key, body and the message's own headers. Those that say what became of it
            take up to 10 KB more.
    """
    own = {
        name: value
        for name, value in headers.items()
        if name == HEADERS or not name.startswith(PREFIX)
    }
    kept = {name: value for name, value in headers.items() if name not in own}
    room = min(MAX_OWN_BYTES, most)
    left = most
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
    truncated = ",".join(one for one in _CAN_BE_CUT if one not in whole)
    return key, body[:left], kept | {TRUNCATED: truncated, BODY_SIZE: str(len(body))}


def _size(header: tuple[str, str]) -> int:
    return sum(len(text.encode()) for text in header)


@dataclass(frozen=True)
class Letter:
    """A record that is no mark: what a service put there, or a stranger."""

    record: Record

    @property
    def position(self) -> Position:
        return self.record.position

    @property
    def topic(self) -> str:
        """Where it came from; empty if nothing says so."""
        return self.record.text.get(TOPIC, "")

    @property
    def origin(self) -> Position | None:
        """Its partition and offset there."""
        partition, offset = self._number(PARTITION), self._number(OFFSET)
        return None if partition is None or offset is None else Position(partition, offset)

    @property
    def attempts(self) -> int | None:
        return self._number(ATTEMPTS)

    @property
    def error_type(self) -> str:
        """The exception's class, with its module; empty if nothing says so."""
        return self.record.text.get(ERROR_TYPE, "")

    @property
    def reason(self) -> str:
        return self.record.text.get(REASON, "")

    @property
    def value(self) -> bytes | None:
        """The message's; None for a tombstone."""
        marked = self.record.text.get(TOMBSTONE) == "true"
        return None if marked and not self.record.value else self.record.value

    @property
    def truncated(self) -> Sequence[str]:
        """What of the message was cut, since it was too large: of `key`, `headers` and `body`."""
        told = self.record.text.get(TRUNCATED, "").split(",")
        return [one for one in _CAN_BE_CUT if one in told]

    @property
    def body_size(self) -> int | None:
        """Bytes of the message's body, where it was cut."""
        return self._number(BODY_SIZE)

    @property
    def at(self) -> datetime | None:
        """When it was put away; None if the record has no time, or an impossible one."""
        try:
            return datetime.fromtimestamp(self.record.timestamp, UTC) if self._timed else None
        except (OverflowError, ValueError, OSError):
            return None

    @property
    def cause(self) -> SpanContext | None:
        """The span that put it away, in the trace that shows every attempt."""
        context = get_current_span(self._context).get_span_context()
        return context if context.is_valid else None

    @property
    def trace_id(self) -> str:
        """32 hex digits; empty if it has no trace."""
        return format_trace_id(self.cause.trace_id) if self.cause else ""

    @property
    def headers(self) -> Headers:
        """What the message had for headers before it was put away, to the byte."""
        exact = _from_json(self.record.text.get(HEADERS, ""))
        return _told_by(self.record.headers) if exact is None else _own(exact)

    @property
    def baggage(self) -> Context:
        """A context with what the message carried for baggage, and without its trace."""
        context = Context()
        for name, value in baggage.get_all(self._context).items():
            if name != "with_batch":  # FastStream's mark, true of one publication only
                context = baggage.set_baggage(name, value, context)
        return context

    @cached_property
    def _context(self) -> Context:
        return extract(self.record.text)

    @property
    def _timed(self) -> bool:
        return self.record.timestamp > 0

    def _number(self, header: str) -> int | None:
        text = self.record.text.get(header, "")
        return int(text) if _NUMBER.fullmatch(text) else None


def encoded(headers: Mapping[str, str]) -> Headers:
    return [(name, value.encode()) for name, value in headers.items()]


def header_text(value: bytes | None) -> str:
    """A header's value as text: null is empty, what is not UTF-8 is replaced."""
    return (value or b"").decode(errors="replace")


def _text(headers: Headers) -> dict[str, str]:
    return {name: header_text(value) for name, value in headers}


def _own(headers: Headers) -> Headers:
    """Without what belongs to one publication: its trace, and its flow."""
    return [
        (name, value)
        for name, value in headers
        if name != FLOW_STARTED and not carries_context(name)
    ]


def _told_by(headers: Headers) -> Headers:
    """What a letter's headers say of those of its message, where `HEADERS` is not among them.

    FastStream adds a content type to what has none: an empty one.
    """
    return [
        (name, value)
        for name, value in _own(headers)
        if not name.startswith(PREFIX) and (value or name != CONTENT_TYPE)
    ]


def readable(value: bytes | None) -> Any:
    """A header's value for JSON: text, null, or `{"base64": …}`."""
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value or b"").decode()}


def _as_json(headers: Headers) -> str:
    each = [[name, readable(value)] for name, value in headers]
    return json.dumps(each, ensure_ascii=False, separators=(",", ":"))


def _from_json(text: str) -> Headers | None:
    """None for what `_as_json` did not write."""
    try:
        match json.loads(text):
            case [*pairs]:
                return [_from_pair(pair) for pair in pairs]
    except (ValueError, RecursionError):  # of half a surrogate pair, too
        pass
    return None


def _from_pair(pair: Any) -> tuple[str, bytes | None]:
    match pair:
        case [str(name), None]:
            value = None
        case [str(name), str(text)]:
            value = text.encode()
        case [str(name), {"base64": str(text)}]:
            value = base64.b64decode(text, validate=True)
        case _:
            raise ValueError("no header")
    name.encode()
    return name, value
