"""How telemetry describes an error: in words, at limited length, without the message it is about.

The text of a validation error quotes its input, and has a line for each of possibly thousands of
places: telemetry has the first places and reasons only. Any other text, such as what your own code
writes into an exception, is cut at the limit.
"""

import traceback
from collections.abc import Mapping

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
"""Characters of a stack trace: a full batch of failed spans has to fit into one export."""
MAX_PLACES = 10
"""Places of a validation error that are named."""
MAX_NAME = 50
"""Characters of a field's name: of one that is not expected, the sender chooses it."""
MAX_CHAIN = 10
"""Errors that led to one another, or were raised together."""


def describe(error: BaseException) -> str:
    """The error in words: `order.quantity: Field required`, or its text. Never raises."""
    wrapped = vars(error).get("original_error")  # FastDepends' own quotes the whole body
    if isinstance(wrapped, ValidationError):
        error = wrapped
    return bounded(
        _places(error) if isinstance(error, ValidationError) else error_text(error), MAX_TEXT
    )


def stack(error: BaseException) -> str:
    """As Python's traceback, what came first first, with `describe` for the text of each error.

    Never raises.
    """
    described: list[str] = []
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen and len(seen) < MAX_CHAIN:
        seen.add(id(one))
        described.append(_described(one))
        cause = one.__cause__  # an error may be false, or raise over the question
        one = one.__context__ if cause is None and not one.__suppress_context__ else cause
    return bounded("\nwhich led to\n\n".join(reversed(described)), MAX_STACK)


def record(
    span: Span, error: BaseException, attributes: Mapping[str, AttributeValue] | None = None
) -> None:
    """Add the error to the span as an event, in place of `Span.record_exception`."""
    if span.is_recording():
        event = {
            EXCEPTION_TYPE: error_type(error),
            EXCEPTION_MESSAGE: describe(error),
            EXCEPTION_STACKTRACE: stack(error),
        }
        span.add_event("exception", {**event, **(attributes or {})})


def fail(span: Span, error: BaseException) -> None:
    """Record the error, and have the span failed by it."""
    if span.is_recording():
        record(span, error)
        span.set_attribute(ERROR_TYPE, error_type(error))
        span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {describe(error)}"))


def error_type(error: BaseException) -> str:
    """`error.type`: the fully qualified class, as the conventions ask; a builtin's name alone."""
    kind = type(error)
    return text(
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def error_text(error: BaseException) -> str:
    """The error's own text; empty if it cannot be made, which must not hide the error."""
    try:
        return text(str(error))
    except Exception:
        return ""


def bounded(whole: str, most: int) -> str:
    """The text if it has at most so many characters, otherwise its two ends."""
    if len(whole) <= most:
        return whole
    gap = f" … {len(whole) - most} characters more … "
    half = (most - len(gap)) // 2
    return whole[:half] + gap + whole[-half:]


def _places(error: ValidationError) -> str:
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    places = []
    for one in errors[:MAX_PLACES]:
        place = ".".join(bounded(str(part), MAX_NAME) for part in one["loc"])
        # The one message of pydantic's own that quotes the input.
        reason = "Unknown tag" if one["type"] == "union_tag_invalid" else one["msg"]
        places.append(f"{place}: {reason}" if place else reason)
    more = len(errors) - len(places)
    return text("; ".join(places) + (f"; and {more} more" if more else ""))


def _described(error: BaseException) -> str:
    frames = "".join(traceback.format_tb(error.__traceback__))
    noted = vars(error).get("__notes__")  # by rule a list of texts, but nothing enforces it
    notes = "".join(f"{text(note)}\n" for note in (noted if isinstance(noted, list) else ()))
    several = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    together = "".join(
        f"  of which one is {error_type(one)}: {describe(one)}\n" for one in several[:MAX_CHAIN]
    )
    head = "Traceback (most recent call last):\n" if frames else ""
    return f"{head}{text(frames)}{error_type(error)}: {describe(error)}\n{notes}{together}"
