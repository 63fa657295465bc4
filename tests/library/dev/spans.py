"""Makes spans and log records, and draws them, for the tests in this folder."""

import io
from typing import Any

from faststream_otel.dev.otlp import LogRecord, Span
from faststream_otel.dev.waterfall import Waterfall
from rich.console import Console

TRACE, OTHER = "a" * 32, "b" * 32
MS = 1_000_000
EPOCH = 1_800_000_000 * 1000 * MS


def span(name: str, number: int, parent: int | None = None, **values: Any) -> Span:
    """Make a span whose id is the number; `start` and `length` are in milliseconds."""
    start, length = values.pop("start", 0), values.pop("length", 10)
    return Span(
        **{
            "trace_id": TRACE,
            "span_id": f"{number:016x}",
            "parent_id": None if parent is None else f"{parent:016x}",
            "name": name,
            "kind": "INTERNAL",
            "start_ns": EPOCH + start * MS,
            "end_ns": EPOCH + (start + length) * MS,
            "service": "orders",
            **values,
        }
    )


def draw(
    spans: list[Span], logs: list[LogRecord] | None = None, width: int = 80, *, colour: bool = False
) -> list[str]:
    """Draw the waterfall of TRACE; return its lines."""
    file = io.StringIO()
    console = Console(
        file=file,
        width=width,
        force_terminal=colour,
        color_system="standard" if colour else None,
        no_color=False if colour else None,
    )
    console.print(Waterfall(TRACE, spans, logs or []))
    return file.getvalue().splitlines()
