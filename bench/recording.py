"""Records what `make demo` prints as an animated picture, docs/images/demo.svg.

It shows the demo from its first line on, in the colours of the terminal. Waiting is shortened, and
each order stays long enough to be read. The animation is CSS, so that a page shows it as an image;
where a reader wants no motion, it is the end of the run.
"""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs/images/demo.svg"
BEGIN = "Starting "
"""What the demo prints first: before it, uv prints what it installs."""
RULE = "───"
"""In each line that begins a scene."""
COLUMNS, ROWS = 98, 34
CELL_WIDTH, CELL_HEIGHT, MARGIN, TITLE = 8.4, 18, 14, 30
LONGEST_WAIT, SCENE, LAST_SCENE = 1.2, 5.0, 8.0
"""Seconds: a wait for output at most; a scene stays at least; so does the last one."""

BACKGROUND, FOREGROUND = "#0d1117", "#c9d1d9"
COLORS = {
    "black": "#6e7681", "red": "#ff7b72", "green": "#3fb950", "yellow": "#d29922",
    "blue": "#58a6ff", "magenta": "#bc8cff", "cyan": "#39c5cf", "white": "#b1bac4",
}  # fmt: skip
"""In the order of their numbers; bright ones are the same."""
STYLE = f"""\
text {{ font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  fill: {FOREGROUND}; white-space: pre }}
.bold {{ font-weight: bold }} .dim {{ opacity: 0.6 }}
{" ".join(f".{name} {{ fill: {color} }}" for name, color in COLORS.items())}
@media (prefers-reduced-motion: reduce) {{ * {{ animation: none !important }} }}
"""


@dataclass(frozen=True)
class Printed:
    """What a program printed at once.

    Attributes:
        at: Seconds after its start.
    """

    at: float
    text: str


def main() -> int:
    subprocess.run(["make", "bake"], cwd=ROOT, check=True)
    # Not -C: make would say which folder it enters.
    printed = list(run("sh", "-c", "cd build/order-flow && exec make demo"))
    PICTURE.write_text(picture(printed, {str(ROOT): "~/faststream-otel"}), "utf-8")
    return 0


def run(*command: str) -> Iterator[Printed]:
    """Run a command in a terminal; yield what it prints.

    Raises:
        subprocess.CalledProcessError: The command failed.
    """
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(ROOT)
        os.environ.pop("NO_COLOR", None)
        os.environ |= {"TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(ROWS)}
        os.execvp(command[0], command)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    began = time.monotonic()
    pending = b""
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # Linux: the other end is closed
            break
        if not data:
            break
        # Whole lines, so that no character is cut.
        *lines, pending = (pending + data).split(b"\n")
        if lines:
            text = b"\n".join([*lines, b""]).decode()
            print(text, end="", flush=True)
            yield Printed(time.monotonic() - began, text.replace("\r\n", "\n"))
    _, status = os.waitpid(child, 0)
    if code := os.waitstatus_to_exitcode(status):
        raise subprocess.CalledProcessError(code, command)


def picture(printed: Sequence[Printed], replaced: dict[str, str]) -> str:
    """Return the animated picture of a run.

    Args:
        replaced: Texts of this machine, and what stands for them.
    """
    steps = list(_timed(_without_setup(printed, replaced)))
    seconds = steps[-1].at + LAST_SCENE
    lines = 0
    timing = f"animation: {seconds:.1f}s step-end infinite"
    groups, styles, scrolls = [], [f".step {{ {timing} }}"], []
    for number, step in enumerate(steps):
        share = 100 * step.at / seconds
        rows = step.text.split("\n")[:-1]
        body = "\n".join(_line(lines + index, row) for index, row in enumerate(rows))
        groups.append(f'<g class="step s{number}">\n{body}\n</g>')
        if share:
            styles.append(
                f"@keyframes s{number} {{ 0% {{ visibility: hidden }}"
                f" {share:.2f}% {{ visibility: visible }} }}"
                f" .s{number} {{ animation-name: s{number} }}"
            )
        lines += len(rows)
        offset = -max(0, lines - ROWS) * CELL_HEIGHT
        scrolls.append(f"{share:.2f}% {{ transform: translateY({offset}px) }}")
    styles += [
        f"@keyframes scroll {{ {' '.join(scrolls)} }}",
        f".screen {{ {timing}; animation-name: scroll; transform: translateY({offset}px) }}",
    ]
    width, height = COLUMNS * CELL_WIDTH, ROWS * CELL_HEIGHT
    size = f"{width + 2 * MARGIN:.0f}", f"{height + TITLE + MARGIN}"
    lights = "".join(
        f'<circle cx="{18 + 17 * index}" cy="15" r="5" fill="{color}"/>'
        for index, color in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    )
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" xml:space="preserve"
  viewBox="0 0 {" ".join(size)}" width="{size[0]}" height="{size[1]}">
<title>make demo: three orders and their traces, drawn in the terminal</title>
<style>
{STYLE}{chr(10).join(styles)}
</style>
<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>
{lights}
<svg x="{MARGIN}" y="{TITLE}" width="{width:.0f}" height="{height}">
<g class="screen">
{chr(10).join(groups)}
</g>
</svg>
</svg>
"""


def _without_setup(printed: Sequence[Printed], replaced: dict[str, str]) -> Iterator[Printed]:
    """Leave out what came before the demo, and after it what make adds."""
    begun = False
    for one in printed:
        text = one.text
        for machines, ours in replaced.items():
            text = text.replace(machines, ours)
        if not begun and (begun := BEGIN in text):
            text = text[text.index(BEGIN) :]
            yield Printed(one.at, f"\x1b[32m$\x1b[0m make demo\n{text}")
        elif begun:
            yield Printed(one.at, text)


def _timed(printed: Iterator[Printed]) -> Iterator[Printed]:
    """Shorten waits, and let each scene stay."""
    at, before, in_scene = 0.0, None, False
    for one in printed:
        for text in _scenes(one.text):
            begins = RULE in text.partition("\n")[0]
            if before is not None:
                wait = min(one.at - before, LONGEST_WAIT)
                at += SCENE if begins and in_scene else max(wait, 0.05)
            before, in_scene = one.at, in_scene or begins
            yield Printed(at, text)


def _scenes(text: str) -> Iterator[str]:
    """Divide a text before each line that begins a scene."""
    part = ""
    for line in text.splitlines(keepends=True):
        if RULE in line and part:
            yield part
            part = ""
        part += line
    yield part


def _line(number: int, ansi: str) -> str:
    """Return a line as text elements, each at the place of its first character."""
    console = Console(width=COLUMNS, color_system="standard", force_terminal=True)
    y = number * CELL_HEIGHT + CELL_HEIGHT - 5
    column, parts = 0, []
    for segment in Text.from_ansi(ansi).render(console, end=""):
        text, style = segment.text, segment.style
        if text.strip():
            kinds = []
            if style and style.color and style.color.number is not None:
                kinds.append(list(COLORS)[style.color.number % 8])
            if style and style.bold:
                kinds.append("bold")
            if style and style.dim:
                kinds.append("dim")
            kind = f' class="{" ".join(kinds)}"' if kinds else ""
            indent = len(text) - len(text.lstrip())
            word = text.strip()
            x = (column + indent) * CELL_WIDTH
            length = len(word) * CELL_WIDTH
            parts.append(
                f'<text{kind} x="{x:.1f}" y="{y}" textLength="{length:.1f}">{escape(word)}</text>'
            )
        column += len(text)
    return "".join(parts)


if __name__ == "__main__":
    sys.exit(main())
