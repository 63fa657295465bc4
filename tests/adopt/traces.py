"""Traces as their reader sees them."""

from collections.abc import Iterable
from typing import Any

from confluent_kafka import Message

Tree = dict[str, "Tree"]


def trace_id(message: Message) -> str:
    """The trace that a message belongs to."""
    headers = dict(message.headers() or ())
    value = headers["traceparent"]
    assert isinstance(value, bytes)
    return value.decode().split("-")[1]


def tree(spans: Iterable[Any]) -> Tree:
    """Nest the names of received spans below their parents'."""
    spans = sorted(spans, key=lambda span: int(span.start_ns))
    known = {span.span_id for span in spans}

    def below(parent: str | None) -> Tree:
        return {
            span.name: below(span.span_id)
            for span in spans
            if (span.parent_id if span.parent_id in known else None) == parent
        }

    return below(None)
