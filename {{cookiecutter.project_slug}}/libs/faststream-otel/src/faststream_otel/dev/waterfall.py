"""Draws a trace in the terminal: a tree of spans with bars to scale, then the traces that link to
it, then the log lines."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from .otlp import Event, LogRecord, Span

MIN_WIDTH = 60
MIN_BAR = 10
KIND = 8  # PRODUCER, CONSUMER, INTERNAL
DURATION = 8  # "999.9 ms"
MAX_SERVICE = 16

_EXCEPTION = {
    "exception.type",
    "exception.message",
    "exception.stacktrace",
    "exception.escaped",
}
_LEVEL_STYLE = {"WARN": "yellow", "WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red",
                "FATAL": "bold red"}  # fmt: skip


@dataclass(frozen=True)
class Waterfall:
    """A rich renderable of a trace, the traces that link to it, and their log records.

    Attributes:
        trace_id: The trace to show, in hex.
        spans: Spans in any order. Of other traces, those that link to this one are shown.
        logs: Log records in any order. Those of other traces are left out.
    """

    trace_id: str
    spans: Sequence[Span]
    logs: Sequence[LogRecord] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = max(MIN_WIDTH, options.max_width)
        shown = linked_traces(self.trace_id, self.spans)
        # One layout for all traces, so that their columns line up.
        trees = {one: list(_tree(_of_trace(self.spans, one))) for one in shown}
        layout = _Layout.fit([row for tree in trees.values() for row in tree], width)
        known = {(span.trace_id, span.span_id): span for span in self.spans}
        begun = min((row.span.start_ns for row in trees[self.trace_id]), default=0)
        for one in shown:
            yield from _trace(one, trees[one], layout, known, begun if one != self.trace_id else 0)
        records = [record for record in self.logs if record.trace_id in shown]
        yield from _log_lines(sorted(records, key=lambda record: record.time_ns), width)


def linked_traces(trace_id: str, spans: Iterable[Span]) -> list[str]:
    """The trace, then the traces that link to it, directly or through others, by their start."""
    followers: dict[str, set[str]] = defaultdict(set)
    begun: dict[str, int] = {}
    for span in spans:
        begun[span.trace_id] = min(span.start_ns, begun.get(span.trace_id, span.start_ns))
        for link in span.links:
            followers[link.trace_id].add(span.trace_id)
    found = [trace_id]
    for one in found:  # grows while iterating
        more = followers[one] - set(found)
        found += sorted(more, key=lambda follower: (begun[follower], follower))
    return found


def orphans(spans: Sequence[Span]) -> list[Span]:
    """The spans whose parent is not among the given spans."""
    present = {(span.trace_id, span.span_id) for span in spans}
    return [
        span
        for span in spans
        if span.parent_id is not None and (span.trace_id, span.parent_id) not in present
    ]


def duration_text(ns: int) -> str:
    """Format a duration: three or four digits and a unit, at most eight cells wide."""
    if ns < 0:
        return f"-{duration_text(-ns)}"
    if ns < 1_000_000:
        return f"{ns / 1e3:.0f} us"
    if ns < 1_000_000_000:
        return f"{ns / 1e6:.1f} ms"
    if ns < 100_000_000_000:
        return f"{ns / 1e9:.2f} s"
    return f"{ns / 60e9:.1f} min"


@dataclass(frozen=True)
class _Row:
    """A span, with the tree's lines before its name and before the remarks beneath it."""

    span: Span
    branch: str
    below: str
    parent_missing: bool


@dataclass(frozen=True)
class _Layout:
    """Widths of the columns in cells: service, tree with names, bar."""

    service: int
    name: int
    bar: int

    @classmethod
    def fit(cls, rows: Sequence[_Row], width: int) -> "_Layout":
        service = min(MAX_SERVICE, max((cell_len(row.span.service) for row in rows), default=0))
        rest = width - service - KIND - DURATION - 4  # one cell between two columns
        longest = max((cell_len(row.branch + _clean(row.span.name)) for row in rows), default=0)
        name = min(longest, rest - MIN_BAR)
        return cls(service, name, rest - name)


def _of_trace(spans: Iterable[Span], trace_id: str) -> list[Span]:
    return [span for span in spans if span.trace_id == trace_id]


def _tree(spans: Sequence[Span]) -> Iterator[_Row]:
    """Walk the spans of one trace as a tree, siblings in the order of start."""
    ordered = sorted(spans, key=lambda span: (span.start_ns, -span.end_ns))
    missing = {span.span_id for span in orphans(ordered)}
    children: dict[str | None, list[Span]] = defaultdict(list)
    for span in ordered:
        children[None if span.span_id in missing else span.parent_id].append(span)
    shown: set[str] = set()

    def walk(span: Span, branch: str, below: str) -> Iterator[_Row]:
        if span.span_id in shown:
            return
        shown.add(span.span_id)
        inner = children[span.span_id]
        yield _Row(span, branch, below + ("│ " if inner else "  "), span.span_id in missing)
        for child in inner:
            last = child is inner[-1]
            yield from walk(
                child, below + ("└ " if last else "├ "), below + ("  " if last else "│ ")
            )

    # `ordered` adds what no root leads to: spans that are each other's parents.
    for root in (*children[None], *ordered):
        yield from walk(root, "", "")


def _trace(
    trace_id: str,
    rows: Sequence[_Row],
    layout: _Layout,
    known: dict[tuple[str, str], Span],
    after: int,
) -> Iterator[Text]:
    spans = [row.span for row in rows]
    if not spans:
        yield Text(f"Trace {trace_id}: none of its spans has arrived", style="bold")
        return
    start = min(span.start_ns for span in spans)
    end = max(span.end_ns for span in spans)
    services = len({span.service for span in spans})
    failed = sum(span.status == "ERROR" for span in spans)
    facts = [_count(len(spans), "span"), _count(services, "service"), duration_text(end - start)]
    if after:
        title = f"↳ Linked trace {trace_id}"
        facts = [facts[0], facts[-1], f"{duration_text(start - after)} later"]
    else:
        title = f"Trace {trace_id}"
    summary = Text(", ".join(facts), style="dim")
    if failed:
        summary.append(", ").append(_count(failed, "error"), style="not dim bold red")
    if len(title) + 2 + summary.cell_len <= _width(layout):
        yield Text.assemble((title, "bold"), "  ", summary)
    else:
        yield Text(title, style="bold")
        yield Text.assemble("  ", summary)
    for row in rows:
        yield _span_line(row, layout, start, max(1, end - start))
        for text, style in _remarks(row, known):
            indent = layout.service + 1 + cell_len(row.below)
            lead = Text(" " * (layout.service + 1)).append(row.below, style="dim")
            yield from _hanging(lead, text, style, indent + 2, _width(layout))
    yield Text()


def _span_line(row: _Row, layout: _Layout, start: int, total: int) -> Text:
    span = row.span
    failed = span.status == "ERROR"
    line = Text(no_wrap=True, overflow="crop")
    line.append(_cell(span.service, layout.service), style="cyan").append(" ")
    line.append(row.branch, style="dim")
    room = max(4, layout.name - cell_len(row.branch))
    line.append(_cell(_clean(span.name), room), style="bold red" if failed else "bold")
    line.append(" ").append(_cell(span.kind, KIND), style="dim").append(" ")
    line.append(duration_text(span.duration_ns).rjust(DURATION)).append(" ")
    line.append(
        _bar(span.start_ns - start, span.duration_ns, total, layout.bar),
        style="red" if failed else "green",
    )
    return line


def _bar(offset: int, length: int, total: int, width: int) -> str:
    """Draw a bar to scale, in eighths of a cell, at least one eighth long."""
    first = min(width - 1, max(0, int(offset * width / total)))
    eighths = min(8 * (width - first), max(1, round(max(0, length) * width * 8 / total)))
    whole, part = divmod(eighths, 8)
    return " " * first + "█" * whole + ("▏▎▍▌▋▊▉"[part - 1] if part else "")


def _remarks(row: _Row, known: dict[tuple[str, str], Span]) -> Iterator[tuple[str, str]]:
    """The lines beneath a span, each with its style."""
    span = row.span
    if row.parent_missing:
        yield f"? its parent {span.parent_id} has not arrived", "yellow"
    if span.status == "ERROR":
        yield f"✗ ERROR {span.status_message}".rstrip(), "red"
    for event in span.events:
        if text := _event_text(event, span):
            yield f"• +{duration_text(event.time_ns - span.start_ns)} {text}".rstrip(), "dim"
    elsewhere = []
    for link in span.links:
        if target := known.get((link.trace_id, link.span_id)):
            yield f"↗ caused by {target.name} ({target.service})", "magenta"
        else:
            elsewhere.append(link)
    if len(elsewhere) == 1:
        (link,) = elsewhere
        yield f"↗ caused by span {link.span_id} of trace {link.trace_id}", "magenta"
    elif elsewhere:
        traces = len({link.trace_id for link in elsewhere})
        yield f"↗ caused by {len(elsewhere)} spans of {_count(traces, 'other trace')}", "magenta"


def _event_text(event: Event, span: Span) -> str:
    """An event and its attributes, without what the span's status already says."""
    others = {key: value for key, value in event.attributes.items() if key not in _EXCEPTION}
    pairs = " ".join(f"{key}={value}" for key, value in others.items())
    if event.name != "exception":
        return f"{event.name} {pairs}"
    error = str(event.attributes.get("exception.type", "exception")).rpartition(".")[2]
    message = str(event.attributes.get("exception.message", ""))
    if message not in span.status_message or not span.status_message:
        return f"{error}: {message} {pairs}"
    return f"{error} {pairs}" if pairs else ""


def _log_lines(records: Sequence[LogRecord], width: int) -> Iterator[Text]:
    if not records:
        return
    yield Text("Logs", style="bold")
    service = min(MAX_SERVICE, max(cell_len(record.service) for record in records))
    level = max(cell_len(record.severity) for record in records)
    for record in records:
        when = datetime.fromtimestamp(record.time_ns / 1e9).astimezone()
        lead = Text(f"{when:%H:%M:%S}.{when.microsecond // 1000:03d} ", style="dim")
        lead.append(_cell(record.service, service), style="cyan").append(" ")
        style = _LEVEL_STYLE.get(record.severity, "")
        lead.append(_cell(record.severity, level), style=style or "not dim").append(" ")
        yield from _hanging(lead, str(record.body), style, lead.cell_len, width)
    yield Text()


def _hanging(lead: Text, text: str, style: str, indent: int, width: int) -> Iterator[Text]:
    """Wrap a text after `lead`; indent further lines by so many cells."""
    room = max(20, width - indent)
    body = Text("\n".join(_clean(line) for line in text.splitlines()) or " ", style=style)
    first, *rest = body.wrap(_MEASURE, room)
    yield Text.assemble(lead, first)
    for line in rest:
        yield Text.assemble(" " * indent, line)


def _width(layout: _Layout) -> int:
    return layout.service + layout.name + layout.bar + KIND + DURATION + 4


def _cell(text: str, width: int) -> str:
    """Fit a text into so many cells; an ellipsis marks a cut."""
    text = _clean(text)
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    return set_cell_size(text, max(0, width - 1)) + "…"


def _clean(text: str) -> str:
    """Replace control characters, which untrusted names and messages may contain."""
    return "".join(character if character.isprintable() else "·" for character in text)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


_MEASURE = Console(width=MIN_WIDTH)
