"""Recorded spans as the tree that a reader of the trace sees."""

from collections.abc import Iterable

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext

Tree = dict[str, "Tree"]


def context(span: ReadableSpan) -> SpanContext:
    """The span's identity, which a finished span always has."""
    identity: SpanContext | None = span.context
    assert identity is not None
    return identity


def tree(spans: Iterable[ReadableSpan]) -> Tree:
    """Nest span names below their parents' names: {"POST /orders": {"send orders.placed": {…}}}."""
    spans = sorted(spans, key=lambda span: span.start_time or 0)
    known = {context(span).span_id for span in spans}

    def below(parent: int | None) -> Tree:
        return {
            span.name: below(context(span).span_id)
            for span in spans
            if (span.parent.span_id if span.parent and span.parent.span_id in known else None)
            == parent
        }

    return below(None)


def named(spans: Iterable[ReadableSpan], name: str) -> ReadableSpan:
    """The one span of this name."""
    found = [span for span in spans if span.name == name]
    assert len(found) == 1, f"{len(found)} spans are named {name!r}"
    return found[0]
