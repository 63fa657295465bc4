"""A dead letter, as stored in its channel.

Do not trust its content: whoever may publish to that channel may publish anything.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from opentelemetry import baggage
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext, format_trace_id, get_current_span

from ...telemetry.propagation import extract
from ..broker import Headers
from .headers import (
    ATTEMPTS,
    BODY_SIZE,
    CHANNEL,
    ERROR_TYPE,
    HEADERS,
    MESSAGE_ID,
    REASON,
    TOMBSTONE,
    TRUNCATED,
    decoded_headers,
    from_json,
    of_message,
    without_context,
)

CAN_BE_CUT = ("key", "headers", "body")
_NUMBER = re.compile("[0-9]{1,19}")


@dataclass(frozen=True)
class Record:
    """Any record of the dead letters' channel.

    Attributes:
        id: Its id in the channel, an opaque text.
        timestamp: Unix seconds; zero or negative if unknown.
    """

    id: str
    timestamp: float
    key: bytes | None
    body: bytes | None
    headers: Headers

    @cached_property
    def text(self) -> Mapping[str, str]:
        """The headers as text. If a name is repeated, the last one counts."""
        return decoded_headers(self.headers)


def moment(timestamp: float) -> datetime | None:
    """The time of a record; None if it is unknown or out of range."""
    try:
        return datetime.fromtimestamp(timestamp, UTC) if timestamp > 0 else None
    except (OverflowError, ValueError, OSError):
        return None


@dataclass(frozen=True)
class DeadLetter:
    """A record that a service sent to the dead letters, or that another program published there."""

    record: Record

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def channel(self) -> str:
        """The channel that the message was consumed from; empty if unknown."""
        return self.record.text.get(CHANNEL, "")

    @property
    def message_id(self) -> str:
        """The message's id in that channel; empty if unknown."""
        return self.record.text.get(MESSAGE_ID, "")

    @property
    def attempts(self) -> int | None:
        return self._number(ATTEMPTS)

    @property
    def error_type(self) -> str:
        """The exception's class, with its module; empty if unknown."""
        return self.record.text.get(ERROR_TYPE, "")

    @property
    def reason(self) -> str:
        return self.record.text.get(REASON, "")

    @property
    def body(self) -> bytes | None:
        """The message's body; None for a tombstone."""
        tombstone = self.record.text.get(TOMBSTONE) == "true"
        return None if tombstone and not self.record.body else self.record.body

    @property
    def truncated(self) -> Sequence[str]:
        """Which of `key`, `headers` and `body` were cut because the message was too large."""
        cut = self.record.text.get(TRUNCATED, "").split(",")
        return [one for one in CAN_BE_CUT if one in cut]

    @property
    def body_size(self) -> int | None:
        """The size of the message's body in bytes; None if nothing was cut."""
        return self._number(BODY_SIZE)

    @property
    def at(self) -> datetime | None:
        """When it was sent to the dead letters; None if that is unknown or out of range."""
        return moment(self.record.timestamp)

    @property
    def cause(self) -> SpanContext | None:
        """The span that sent it to the dead letters, in the trace that shows every attempt."""
        context = get_current_span(self._context).get_span_context()
        return context if context.is_valid else None

    @property
    def trace_id(self) -> str:
        """32 hex digits; empty if it has no trace."""
        return format_trace_id(self.cause.trace_id) if self.cause else ""

    @property
    def headers(self) -> Headers:
        """The message's own headers, byte for byte."""
        exact = from_json(self.record.text.get(HEADERS, ""))
        return of_message(self.record.headers) if exact is None else without_context(exact)

    @property
    def baggage(self) -> Context:
        """A context with the message's baggage, but without its trace."""
        context = Context()
        for name, value in baggage.get_all(self._context).items():
            if name != "with_batch":  # FastStream's mark of a published batch
                context = baggage.set_baggage(name, value, context)
        return context

    @cached_property
    def _context(self) -> Context:
        return extract(self.record.text)

    def _number(self, header: str) -> int | None:
        text = self.record.text.get(header, "")
        return int(text) if _NUMBER.fullmatch(text) else None
