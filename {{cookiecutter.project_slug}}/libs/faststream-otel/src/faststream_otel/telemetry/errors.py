"""How telemetry describes an error: at limited length, and without quoting the message.

The text of a validation error quotes the input, and has a line for each invalid field, possibly
thousands. Telemetry contains only the first fields and reasons. The text of any other error is cut
at the limit.
"""

import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.exception_attributes import (
    EXCEPTION_MESSAGE,
    EXCEPTION_STACKTRACE,
    EXCEPTION_TYPE,
)
from opentelemetry.trace import Span, Status, StatusCode
from opentelemetry.util.types import AttributeValue
from pydantic import ValidationError

from .values import text

MAX_TEXT = 1000
"""Characters of an error's text."""
MAX_STACK = 4000
"""Characters of a stack trace: a full batch of failed spans must fit into one export."""
MAX_FIELDS = 10
"""Fields of a validation error."""
MAX_NAME = 50
"""Characters of a field's name: the sender chooses the names of unexpected fields."""
MAX_CHAIN = 10
"""Errors of a chain of causes, or of an exception group."""


def describe(error: BaseException) -> str:
    """The error's text; for a validation error `order.quantity: Field required`. Never raises."""
    wrapped = vars(error).get("original_error")  # FastDepends' own quotes the whole body
    if isinstance(wrapped, ValidationError):
        error = wrapped
    if isinstance(error, ValidationError):
        found: Sequence[Any] = error.errors(
            include_url=False, include_context=False, include_input=False
        )
    elif is_of_fastapi(error, "ValidationException"):
        found = error.errors()  # type: ignore[attr-defined]
    else:
        return bounded(error_text(error), MAX_TEXT)
    return bounded(_fields(found), MAX_TEXT)


def is_of_fastapi(error: BaseException, name: str) -> bool:
    """Whether the error is an instance of this class of `fastapi.exceptions`."""
    # If nobody has imported it, nobody has raised one.
    kind = getattr(sys.modules.get("fastapi.exceptions"), name, None)
    return kind is not None and isinstance(error, kind)


def stack(error: BaseException) -> str:
    """A traceback like Python's, causes first, in which `describe` gives the text of each error.

    Never raises.
    """
    described: list[str] = []
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen and len(seen) < MAX_CHAIN:
        seen.add(id(one))
        described.append(_described(one))
        cause = one.__cause__  # compared with None: `bool(error)` may be False, or raise
        one = one.__context__ if cause is None and not one.__suppress_context__ else cause
    return bounded("\nwhich led to\n\n".join(reversed(described)), MAX_STACK)


def record(
    span: Span, error: BaseException, attributes: Mapping[str, AttributeValue] | None = None
) -> None:
    """Add the error to the span as an event. Replaces `Span.record_exception`."""
    if span.is_recording():
        event = {
            EXCEPTION_TYPE: error_type(error),
            EXCEPTION_MESSAGE: describe(error),
            EXCEPTION_STACKTRACE: stack(error),
        }
        span.add_event("exception", {**event, **(attributes or {})})


def fail(span: Span, error: BaseException) -> None:
    """Record the error on the span, and set the span's status to ERROR."""
    if span.is_recording():
        record(span, error)
        span.set_attribute(ERROR_TYPE, error_type(error))
        span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {describe(error)}"))


def error_type(error: BaseException) -> str:
    """`error.type`: the fully qualified class, as the conventions ask; for a builtin its name."""
    kind = type(error)
    return text(
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def error_text(error: BaseException) -> str:
    """`str` of the error; empty if that raises."""
    try:
        return text(str(error))
    except Exception:
        return ""


def bounded(whole: str, most: int) -> str:
    """The text, cut in the middle if it has more than `most` characters."""
    if len(whole) <= most:
        return whole
    gap = f" … {len(whole) - most} characters more … "
    half = (most - len(gap)) // 2
    return whole[:half] + gap + whole[-half:]


def _fields(errors: Sequence[Any]) -> str:
    fields = []
    for one in errors[:MAX_FIELDS]:
        field = ".".join(bounded(str(part), MAX_NAME) for part in one["loc"])
        # Of pydantic's messages, only this one quotes the input.
        reason = "Unknown tag" if one["type"] == "union_tag_invalid" else one["msg"]
        fields.append(f"{field}: {reason}" if field else reason)
    more = len(errors) - len(fields)
    return text("; ".join(fields) + (f"; and {more} more" if more else ""))


def _described(error: BaseException) -> str:
    frames = "".join(traceback.format_tb(error.__traceback__))
    noted = vars(error).get("__notes__")  # should be a list of texts, but Python does not check it
    notes = "".join(f"{text(note)}\n" for note in (noted if isinstance(noted, list) else ()))
    several = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    together = "".join(
        f"  of which one is {error_type(one)}: {describe(one)}\n" for one in several[:MAX_CHAIN]
    )
    head = "Traceback (most recent call last):\n" if frames else ""
    return f"{head}{text(frames)}{error_type(error)}: {describe(error)}\n{notes}{together}"
