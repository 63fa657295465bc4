"""The headers of a dead letter: their names, and how they hold the message's own headers."""

import base64
import json
from collections.abc import Mapping
from typing import Any

from ...telemetry.propagation import carries_context
from ...telemetry.values import decoded
from ..broker import Headers
from ..prometheus import FLOW_STARTED

PREFIX = "dead-letter."
CHANNEL = f"{PREFIX}channel"
MESSAGE_ID = f"{PREFIX}message-id"
ATTEMPTS = f"{PREFIX}attempts"
ERROR_TYPE = f"{PREFIX}error.type"
REASON = f"{PREFIX}reason"
TOMBSTONE = f"{PREFIX}tombstone"
TRUNCATED = f"{PREFIX}truncated"
BODY_SIZE = f"{PREFIX}body-size"
HEADERS = f"{PREFIX}headers"
"""The message's headers as JSON, `[[name, value], …]`. A value is text, null or `{"base64": …}`.

It exists only if the plain headers cannot hold them: these are text, and each name occurs once."""
STATE = f"{PREFIX}state"
"""Only on a record that changes the state of dead letters."""
CONTENT_TYPE = "content-type"
CORRELATION_ID = "correlation_id"
BAGGAGE = "baggage"


def encoded_headers(headers: Mapping[str, str]) -> Headers:
    return [(name, value.encode()) for name, value in headers.items()]


def decoded_headers(headers: Headers) -> dict[str, str]:
    """Headers as text. If a name is repeated, the last one counts."""
    return {name: decoded(value) for name, value in headers}


def without_context(headers: Headers) -> Headers:
    """Headers without those that each publication sets: trace context and start of the flow."""
    return [
        (name, value)
        for name, value in headers
        if name != FLOW_STARTED and not carries_context(name)
    ]


def of_message(headers: Headers) -> Headers:
    """The message's own headers, from the headers of a dead letter without `HEADERS`.

    It drops the empty content type that FastStream adds to a message without one.
    """
    return [
        (name, value)
        for name, value in without_context(headers)
        if not name.startswith(PREFIX) and (value or name != CONTENT_TYPE)
    ]


def readable(value: bytes | None) -> Any:
    """A header's value for JSON: text, null, or `{"base64": …}`."""
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value or b"").decode()}


def to_json(headers: Headers) -> str:
    """The value of `HEADERS`."""
    each = [[name, readable(value)] for name, value in headers]
    return json.dumps(each, ensure_ascii=False, separators=(",", ":"))


def from_json(text: str) -> Headers | None:
    """The headers in a value of `HEADERS`; None if `to_json` did not write it."""
    try:
        match json.loads(text):
            case [*pairs]:
                return [_from_pair(pair) for pair in pairs]
    except (ValueError, RecursionError):  # ValueError also for a lone surrogate
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
            raise ValueError("not a header")
    name.encode()
    return name, value
