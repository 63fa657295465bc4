"""The waterfall shows a trace at any width, whatever the order of its spans."""

import random
import re

import pytest
from faststream_otel.dev.otlp import Event, Link, LogRecord
from faststream_otel.dev.waterfall import duration_text, linked_traces, orphans
from rich.cells import cell_len

from .spans import EPOCH, MS, OTHER, TRACE, draw, span

FLOW = [
    span("POST /orders", 1, kind="SERVER", length=100),
    span("send orders.placed", 2, 1, kind="PRODUCER", start=10, length=20),
    span("process orders.placed", 3, 2, kind="CONSUMER", start=50, length=40, service="payments"),
    span("authorize card", 4, 3, start=60, length=10, service="payments"),
    span("send payments.authorized", 5, 3, kind="PRODUCER", start=75, service="payments"),
]


def test_children_stand_beneath_their_parents() -> None:
    lines = draw(FLOW)
    assert "5 spans, 2 services, 100.0 ms" in lines[0]
    names = [re.sub(r" (SERVER|PRODUCER|CONSUMER|INTERNAL).*", "", line) for line in lines[1:6]]
    assert [name.rstrip() for name in names] == [
        "orders   POST /orders",
        "orders   └ send orders.placed",
        "payments   └ process orders.placed",
        "payments     ├ authorize card",
        "payments     └ send payments.authorized",
    ]


def test_bars_are_to_scale() -> None:
    root, send, *_ = (line for line in draw(FLOW)[1:])
    begin = root.index("█")
    width = root.count("█")
    assert send.index("█") - begin == pytest.approx(width * 0.1, abs=1)
    assert send.count("█") == pytest.approx(width * 0.2, abs=1)


def test_order_of_arrival_does_not_matter() -> None:
    shuffled = FLOW.copy()
    random.Random(1).shuffle(shuffled)
    assert draw(shuffled) == draw(FLOW)


@pytest.mark.parametrize("width", [80, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    deep = [
        span("a very long name that goes on and on " * 4, n + 1, n or None, service="s" * 40)
        for n in range(30)
    ]
    record = LogRecord(EPOCH, "INFO", "word " * 100, service="orders", trace_id=TRACE)
    lines = draw(deep, [record], width)
    assert max(map(cell_len, lines)) <= width
    assert sum("…" in line for line in lines) >= 30
    assert max(map(cell_len, draw(FLOW, width=width))) == width, "the root's bar ends at the edge"


def test_an_error_is_text_and_red() -> None:
    failed = span("process", 1, status="ERROR", status_message="NoCarrierError: none goes to AQ")
    assert any("✗ ERROR NoCarrierError: none goes to AQ" in line for line in draw([failed]))
    assert "1 error" in draw([failed])[0]
    coloured = "\n".join(draw([failed], colour=True))
    assert "\x1b[31m" in coloured
    assert "\x1b[1;31m" in coloured


def test_events_are_shown_but_no_exception_twice() -> None:
    exception = Event(
        "exception", EPOCH + MS, {"exception.type": "x.Oops", "exception.message": "no"}
    )
    again = Event("exception", EPOCH + 2 * MS, {**exception.attributes, "retry.attempt": 1})
    declined = Event("payment declined", EPOCH + 3 * MS, {"reason": "limit"})
    text = "\n".join(
        draw(
            [
                span(
                    "p",
                    1,
                    status="ERROR",
                    status_message="Oops: no",
                    events=(exception, again, declined),
                )
            ]
        )
    )
    assert "+1.0 ms" not in text
    assert "• +2.0 ms Oops retry.attempt=1" in text
    assert "• +3.0 ms payment declined reason=limit" in text


def test_linked_trace_stands_beneath_with_its_cause_and_logs() -> None:
    batch = span(
        "process shipments.dispatched",
        9,
        trace_id=OTHER,
        service="notifications",
        start=150,
        links=(Link(TRACE, FLOW[1].span_id), Link("c" * 32, "d" * 16)),
    )
    logs = [
        LogRecord(EPOCH + 9 * MS, "ERROR", "second", service="notifications", trace_id=OTHER),
        LogRecord(EPOCH + 1 * MS, "INFO", "first", service="orders", trace_id=TRACE),
        LogRecord(EPOCH, "INFO", "of another trace", service="orders", trace_id="e" * 32),
        LogRecord(EPOCH, "INFO", "of none", service="orders"),
    ]
    text = "\n".join(draw([batch, *FLOW], logs))
    assert linked_traces(TRACE, [batch, *FLOW]) == [TRACE, OTHER]
    assert f"↳ Linked trace {OTHER}  1 span, 10.0 ms, 150.0 ms later" in text
    assert "↗ caused by send orders.placed (orders)" in text
    assert f"↗ caused by span {'d' * 16} of trace {'c' * 32}" in " ".join(text.split())
    assert text.index("Linked trace") < text.index("first") < text.index("second")
    assert "of another trace" not in text
    assert "of none" not in text


def test_many_causes_elsewhere_are_counted() -> None:
    links = tuple(Link(n * 32, n * 16) for n in "def")
    text = "\n".join(draw([span("process", 1, links=links)]))
    assert "↗ caused by 3 spans of 3 other traces" in text


def test_missing_parent_is_named() -> None:
    assert orphans(FLOW[1:]) == [FLOW[1]]
    assert any("its parent 0000000000000001 has not arrived" in line for line in draw(FLOW[1:]))


def test_spans_that_are_each_others_parents_are_still_shown() -> None:
    text = "\n".join(draw([span("hen", 1, 2), span("egg", 2, 1)]))
    assert "hen" in text
    assert "egg" in text


def test_names_cannot_move_the_cursor_or_pass_for_markup() -> None:
    text = "\n".join(draw([span("\x1b[2J[red]name[/red]\nx", 1)]))
    assert "·[2J[red]name[/red]·x" in text


def test_no_span_is_no_error() -> None:
    assert draw([]) == [f"Trace {TRACE}: none of its spans has arrived"]


@pytest.mark.parametrize(
    ("ns", "text"),
    [(17_000, "17 us"), (48_300_000, "48.3 ms"), (1_190_000_000, "1.19 s"), (-17_000, "-17 us"),
     (999_999_999, "1000.0 ms"), (120 * 10**9, "2.0 min")],
)  # fmt: skip
def test_duration(ns: int, text: str) -> None:
    assert duration_text(ns) == text
