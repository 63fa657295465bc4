"""Two charts as SVG, for a light and a dark page. They need no library and no font of their own."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil

from .figures import Spread

STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.small { font-size: 11px; fill: #59636e; }
.grid { stroke: #d1d9e0; } .spread { stroke: #1f2328; stroke-width: 1.5; }
.plain { fill: #8c959f; stroke: #8c959f; } .theirs { fill: #bc6c25; stroke: #bc6c25; }
.ours { fill: #1a7f64; stroke: #1a7f64; } polyline { fill: none !important; stroke-width: 2; }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc; } .small { fill: #9198a1; }
  .grid { stroke: #3d444d; } .spread { stroke: #f0f6fc; }
  .plain { fill: #656c76; stroke: #656c76; } .theirs { fill: #dda15e; stroke: #dda15e; }
  .ours { fill: #3fb68b; stroke: #3fb68b; }
}
</style>"""
WIDTH, NAMES, RIGHT, ROW, TOP = 860, 400, 60, 28, 34


@dataclass(frozen=True)
class Bar:
    """A row: its name, its figure, and whose it is: `plain`, `theirs` or `ours`."""

    name: str
    figure: Spread
    kind: str


@dataclass(frozen=True)
class Line:
    """A line of points, and whose it is."""

    name: str
    points: Sequence[tuple[float, float]]
    kind: str


def bars(title: str, rows: Sequence[Bar]) -> str:
    """Horizontal bars from zero, each with the range of its rounds."""
    most = max(row.figure.most for row in rows)
    scale = (WIDTH - NAMES - RIGHT) / most
    height = TOP + ROW * len(rows) + 26
    parts = [f'<text x="8" y="20">{escape(title)}</text>']
    step = 0.5 if most <= 4 else ceil(most / 8)
    for tick in range(int(most / step) + 1):
        x = NAMES + tick * step * scale
        parts.append(_line("grid", x, TOP, x, height - 24))
        parts.append(_small(x, height - 8, f"{tick * step:g}"))
    for number, row in enumerate(rows):
        y = TOP + ROW * number
        width, least, end = (x * scale for x in (row.figure.median, row.figure.least,
                                                 row.figure.most))  # fmt: skip
        parts += [
            f'<text x="{NAMES - 8}" y="{y + 19}" text-anchor="end">{escape(row.name)}</text>',
            f'<rect class="{row.kind}" x="{NAMES}" y="{y + 5}" width="{width:.0f}" height="18"/>',
            _line("spread", NAMES + least, y + 14, NAMES + end, y + 14),
            f'<text x="{NAMES + end + 6:.0f}" y="{y + 19}">{row.figure.median:.2f}</text>',
        ]
    return _svg(height, title, parts)


def lines(title: str, across: str, rows: Sequence[Line]) -> str:
    """Lines from zero in both directions."""
    height, left, top, bottom = 340, 80, 58, 300
    right = max(x for row in rows for x, _ in row.points)
    most = max(y for row in rows for _, y in row.points)
    wide, high = (WIDTH - left - RIGHT) / right, (bottom - top) / most
    parts = [f'<text x="8" y="20">{escape(title)}</text>']
    for tick in range(5):
        y = bottom - tick * (bottom - top) / 4
        x = left + tick * (WIDTH - left - RIGHT) / 4
        parts += [
            _line("grid", left, y, WIDTH - RIGHT, y),
            _small(left - 8, y + 4, f"{most * tick / 4:,.0f}", "end"),
            _small(x, bottom + 18, f"{right * tick / 4:.0f}"),
        ]
    parts.append(_small(WIDTH - RIGHT, height - 6, across, "end"))
    for number, row in enumerate(rows):
        points = " ".join(f"{left + x * wide:.1f},{bottom - y * high:.1f}" for x, y in row.points)
        y = 20 + 20 * number
        parts += [
            f'<polyline class="{row.kind}" points="{points}"/>',
            f'<rect class="{row.kind}" x="{WIDTH - 300}" y="{y - 9}" width="14" height="6"/>',
            f'<text x="{WIDTH - 278}" y="{y}">{escape(row.name)}</text>',
        ]
    return _svg(height, title, parts)


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.0f}" y1="{y1:.0f}" x2="{x2:.0f}" y2="{y2:.0f}"/>'


def _small(x: float, y: float, text: str, anchor: str = "middle") -> str:
    at = f'x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}"'
    return f'<text class="small" {at}>{escape(text)}</text>'


def _svg(height: int, title: str, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"'
        f' aria-label="{escape(title)}">'
    )
    return "\n".join([head, STYLE, *parts, "</svg>", ""])
