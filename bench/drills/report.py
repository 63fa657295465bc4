"""The table that a run prints, ready to paste into Markdown."""

from collections.abc import Mapping

from .promises import Figures, Promise, broken

HEAD = (
    "| Broker | Fault | Orders sent | acknowledged | handled | dead letters | lost | twice"
    " | Spans expected | found | lost | Rate /s | Seen | Promise |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n"
)


def row(broker: str, promise: Promise, figures: Figures) -> str:
    """Return a drill's line of the table."""
    messages, spans = figures.messages, figures.spans
    why = broken(promise, figures)
    cells = [
        broker,
        promise.fault,
        figures.sent,
        messages.acknowledged,
        messages.handled,
        messages.dead_letters,
        len(messages.lost),
        len(messages.duplicates),
        spans.expected,
        spans.expected - len(spans.missing),
        len(spans.missing),
        "-" if figures.rate is None else f"{figures.rate:.0f}",
        "; ".join(figures.notes) or "-",
        f"**broken**: {'; '.join(why)}" if why else "kept",
    ]
    return _line(cells)


def failed(broker: str, promise: Promise, error: BaseException) -> str:
    """Return the line of a drill that did not finish."""
    reason = " ".join(str(error).split())[:300]
    broken = f"**broken**: the drill failed: {reason}"
    return _line([broker, promise.fault, *["?"] * 10, "-", broken])


def table(rows: Mapping[str, str]) -> str:
    return HEAD + "".join(rows.values())


def _line(cells: list[object]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |\n"
