"""Writes the figures of docs/cost.json into the pages, and draws their charts.

A page marks where a table stands: `<!-- bench:variants -->` … `<!-- /bench -->`. The text around is
written by people.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from . import parts
from .chart import Bar, Line, bars, lines
from .figures import MB, ratios
from .measured.brokers import BROKERS
from .variants import ROOT, VARIANTS

FIGURES = ROOT / "docs/cost.json"
PAGES = (ROOT / "docs/cost.md", ROOT / "docs/brokers.md", ROOT / "README.md")
IMAGES = ROOT / "docs/images"
BLOCK = re.compile(r"(<!-- bench:([\w-]+) -->\n).*?(<!-- /bench -->)", re.DOTALL)

SHORT = {
    "bare": "FastStream without telemetry",
    "bare-tuned": "with the loop, log level, gc of a bake",
    "bare-acknowledged": "with acknowledgement after success",
    "recipe": "FastStream's docs recipe: traces",
    "recipe-prometheus": "the recipe with Prometheus metrics",
    "ours": "ours in five lines: traces",
    "ours-prometheus": "ours with Prometheus metrics",
    "service": "the whole service, all signals",
    "service-sampled": "the whole service, sampled at 10 %",
    "service-disabled": "the whole service, SDK disabled",
}


def write(figures: dict[str, Any]) -> None:
    """Write the figures, the charts, and the tables of all pages."""
    FIGURES.write_text(text_of(figures), "utf-8")
    for name, svg in charts(figures).items():
        (IMAGES / name).write_text(svg, "utf-8")
    for page in PAGES:
        page.write_text(filled(page.read_text("utf-8"), figures), "utf-8")


def text_of(figures: Mapping[str, Any]) -> str:
    """JSON with one line for each round."""
    text = json.dumps(figures, indent=1)
    # Lists and maps without others inside, on one line each.
    return re.sub(r"([\[{])\n\s+([^\[\]{}]*?)\n\s+([\]}])", _joined, text) + "\n"


def _joined(found: re.Match[str]) -> str:
    return found[1] + re.sub(r"\n\s*", " ", found[2]) + found[3]


def read() -> dict[str, Any]:
    figures: dict[str, Any] = json.loads(FIGURES.read_text("utf-8")) if FIGURES.exists() else {}
    return figures


def filled(text: str, figures: dict[str, Any]) -> str:
    """A page with these figures."""
    return replaced(text, blocks(figures))


def replaced(text: str, made: Mapping[str, str]) -> str:
    """A page with these tables, by the names of their places."""

    def block(found: re.Match[str]) -> str:
        if found[2] not in made:  # a part that was not run
            return found[0]
        return f"{found[1]}{made[found[2]]}\n{found[3]}"

    return BLOCK.sub(block, text)


def blocks(figures: dict[str, Any]) -> dict[str, str]:
    """The tables of all parts, and what they were measured with."""
    made: dict[str, str] = {}
    for name, part in figures.items():
        made |= parts.tables(name, part["result"])
    if "variants" in figures:
        made["variants-with"] = measured_with(figures["variants"])
    made["measured-with"] = all_measured_with(figures)
    return made


def measured_with(part: dict[str, Any]) -> str:
    """What a part was measured with."""
    return f"{_how(part)}; {_where(part)}."


def all_measured_with(figures: dict[str, Any]) -> str:
    """The same of all parts, by machine and versions."""
    by_place: dict[str, list[str]] = {}
    for name, part in figures.items():
        by_place.setdefault(_where(part), []).append(f"- {name}: {_how(part)}")
    return "\n\n".join("\n".join([f"{where}:", "", *names]) for where, names in by_place.items())


def _how(part: dict[str, Any]) -> str:
    versions = part["versions"]
    servers = [f"{kind.title} {versions[x]}" for x, kind in BROKERS.items() if x in versions]
    look = ", **only a look**: fewer messages" if part["quick"] else ""
    many = "s" * (part["rounds"] > 1)
    return f"{part['rounds']} round{many} on {part['date']}, {', '.join(servers)}{look}"


def _where(part: dict[str, Any]) -> str:
    machine = part["machine"]
    packages = [f"{x} {version}" for x, version in part["versions"].items() if x not in BROKERS]
    return (
        f"{machine['cores']} cores of {machine['cpu']}, {machine['system']},"
        f" Python {machine['python']}, {', '.join(packages)}"
    )


def charts(figures: dict[str, Any]) -> dict[str, str]:
    """The charts by their file names."""
    made = {}
    if "variants" in figures:
        rounds = figures["variants"]["result"]["rounds"]
        rows = [
            Bar(SHORT[name], ratios(rounds, "cpu_us", name, "bare"), _kind(name))
            for name in VARIANTS
        ]
        title = "CPU time per message and hop, to FastStream without telemetry"
        made["cost.svg"] = bars(title, rows)
    if "backlog" in figures:
        made |= _backlog_charts(figures["backlog"]["result"])
    return made


def _backlog_charts(result: dict[str, Any]) -> dict[str, str]:
    messages = result["messages"]

    def drawn(title: str, of: Callable[[int, int], float]) -> str:
        rows = [
            Line(
                SHORT[name],
                [(seconds, of(done, memory)) for seconds, done, memory in run["progress"]],
                _kind(name),
            )
            for name, run in result["runs"].items()
        ]
        return lines(title, "seconds", rows)

    title = f"A backlog of {messages:,} messages"
    return {
        "cost-backlog.svg": drawn(f"{title}: how many still wait", lambda done, _: messages - done),
        "cost-memory.svg": drawn(f"{title}: memory in use, MB", lambda _, memory: memory / MB),
    }


def _kind(name: str) -> str:
    return "plain" if name.startswith("bare") else "theirs" if "recipe" in name else "ours"
