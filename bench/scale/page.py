"""Writes the figures of docs/scale.json, and what the model makes of them, into docs/scaling.md."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from ..chart import Bar, bars
from ..figures import MB, Spread, table
from ..page import IMAGES, replaced
from ..page import text_of as text_of
from ..variants import ROOT
from .model import Assumptions, Needs, Wall, costs_of, needs, one_process, predictions, rounded

FIGURES = ROOT / "docs/scale.json"
PAGE = ROOT / "docs/scaling.md"
RATES = (1_000, 10_000, 100_000)
NAMES = {
    "orders": "orders (HTTP)",
    "payments": "payments",
    "shipping": "shipping",
    "notifications": "notifications (batches)",
    "kafka": "Kafka",
    "otel-collector": "Collector",
    "tempo": "Tempo",
    "loki": "Loki",
    "prometheus": "Prometheus",
    "lag": "lag exporter",
    "grafana": "Grafana",
}
OURS = ("orders", "payments", "shipping", "notifications")
GB = 1e9


def read() -> dict[str, Any]:
    figures: dict[str, Any] = json.loads(FIGURES.read_text("utf-8"))
    return figures


def write(figures: Mapping[str, Any]) -> None:
    """Write the figures, the charts, and the tables of the page."""
    FIGURES.write_text(text_of(figures), "utf-8")
    for name, svg in charts(figures).items():
        (IMAGES / name).write_text(svg, "utf-8")
    PAGE.write_text(filled(PAGE.read_text("utf-8"), figures), "utf-8")


def filled(text: str, figures: Mapping[str, Any]) -> str:
    """The page with these figures."""
    return replaced(text, blocks(figures))


def blocks(figures: Mapping[str, Any]) -> dict[str, str]:
    """The tables of the page by their names."""
    return {
        "scale-with": measured_with(figures),
        "scale-cpu": _cpu(figures),
        "scale-first": _first(figures),
        "scale-growth": _growth(figures),
        "scale-tail": _tail(figures),
        "scale-drains": _drains(figures),
        "scale-check": _check(figures),
        "scale-assumed": _assumed(),
        "scale-needs": needs_of(figures, *RATES),
        "scale-walls": _walls(one_process(costs_of(figures), Assumptions())),
    }


def measured_with(figures: Mapping[str, Any]) -> str:
    machine, versions = figures["machine"], figures["versions"]
    parts = ", ".join(f"{NAMES.get(one, one.title())} {x}" for one, x in versions.items())
    look = ", **a quick run** with fewer orders" if figures["quick"] else ""
    return (
        f"Measured on {figures['date']} on {machine['cores']} cores of {machine['cpu']},"
        f" {machine['system']}: {parts}{look}."
    )


def _cpu(figures: Mapping[str, Any]) -> str:
    cost = figures["cost"]
    windows = cost["windows"]
    *paced, fastest = windows

    def row(name: str) -> list[str]:
        return [
            NAMES[name],
            *(f"{one['cpu_ms'][name]:.2f}" for one in windows),
            f"{cost['idle']['cores'][name] * 1000:.0f}",
            f"{fastest['memory'][name] / MB:.0f}",
        ]

    order = sorted(NAMES, key=lambda name: -fastest["cpu_ms"][name])
    total = [
        "**total**",
        *(f"{sum(one['cpu_ms'].values()):.2f}" for one in windows),
        f"{sum(cost['idle']['cores'].values()) * 1000:.0f}",
        f"{sum(fastest['memory'].values()) / MB:.0f}",
    ]
    head = [
        "CPU seconds per 1,000 orders",
        *(f"at {one['rate']:.0f} orders/s" for one in paced),
        f"flat out, {fastest['rate']:.0f} orders/s",
        "at rest, thousandths of a core",
        "memory, MB",
    ]
    return table(head, [*map(row, order), total])


def _first(figures: Mapping[str, Any]) -> str:
    """Which service reaches its limit first, with one process of each."""
    *_, fastest = figures["cost"]["windows"]
    rates = sorted((1000 / fastest["cpu_ms"][name], name) for name in OURS)
    rows = [[NAMES[name], f"{rounded(rate):,.0f}"] for rate, name in rates]
    together = 1000 / sum(fastest["cpu_ms"].values())
    rows.append(["**all parts, sharing one core**", f"{rounded(together):,.0f}"])
    return table(["One process of", "orders/s of one core"], rows)


def _growth(figures: Mapping[str, Any]) -> str:
    cost = figures["cost"]
    *_, fastest = cost["windows"]
    counted, disk = fastest["counted"], cost["disk"]
    rows = [
        ["Kafka", "3 messages", "", f"{disk['kafka'] / 1000:.2f}"],
        [
            "Tempo",
            f"{counted['spans']:.1f} spans",
            f"{counted['trace_bytes'] / 1000:.2f}",
            f"{disk['tempo'] / 1000:.2f}",
        ],
        [
            "Loki",
            f"{counted['records']:.1f} records",
            f"{counted['log_bytes'] / 1000:.2f}",
            f"{disk['loki'] / 1000:.2f}",
        ],
    ]
    return table(["", "per order", "received, MB per 1,000 orders", "on disk, MB"], rows)


def _tail(figures: Mapping[str, Any]) -> str:
    cost, tail, layers = figures["cost"], figures["tail"], figures["layers"]
    *_, usual, _ = cost["windows"]
    columns = {
        "every trace stored": usual,
        "tail sampling": tail,
        "two layers, every trace": layers,
    }

    def cpu(one: Mapping[str, Any], name: str) -> str:
        return f"{one['cpu_ms'][name]:.2f}" if name in one["cpu_ms"] else ""

    rows = [
        ["orders/s", *(f"{one['rate']:.0f}" for one in columns.values())],
        *(
            [
                f"{name}, CPU seconds per 1,000 orders",
                *(cpu(one, part) for one in columns.values()),
            ]
            for part, name in (
                ("first-layer", "Collector of the first layer"),
                ("otel-collector", "Collector"),
                ("tempo", "Tempo"),
            )
        ),
        [
            "Collector's memory, MB",
            *(f"{one['memory']['otel-collector'] / MB:.0f}" for one in columns.values()),
        ],
        [
            "spans stored per order",
            *(f"{one['counted']['stored_spans']:.1f}" for one in columns.values()),
        ],
    ]
    return table(["", *columns], rows)


def _drains(figures: Mapping[str, Any]) -> str:
    limited = [one for one in figures["drains"] if one["wait"]]
    steps = sorted({one["replicas"] for one in limited})
    rates = {(one["partitions"], one["replicas"]): one["rate"] for one in limited}
    rows = [
        [f"{partitions}", *(f"{rates[partitions, replicas]:.1f}" for replicas in steps)]
        for partitions in sorted({one["partitions"] for one in limited})
    ]
    busy = " and ".join(
        f"{one['rate']:.0f} with {_many(one['partitions'], 'partition')}"
        f" and {_many(one['replicas'], 'replica')}"
        for one in figures["drains"]
        if not one["wait"]
    )
    head = ["partitions", *(_many(one, "replica") for one in steps)]
    return f"{table(head, rows)}\n\nWith handlers that do not wait: {busy}."


def _check(figures: Mapping[str, Any]) -> str:
    rows = [
        [
            f"{one['partitions']}",
            f"{one['replicas']}",
            f"{one['wait'] * 1000:.0f}",
            f"{one['rate']:.1f}",
            f"{rate:.1f}",
            f"{one['rate'] / rate:.2f}",
        ]
        for one, rate in predictions(figures)
    ]
    head = ["partitions", "replicas", "a handler waits, ms", "measured, orders/s", "model", "ratio"]
    return table(head, rows)


def _assumed() -> str:
    one = Assumptions()
    rows = [
        ["a pod is busy for", f"{one.utilisation:.0%} of its cores"],
        ["cores of a service's pod", f"{one.service_cores:g}"],
        ["cores of a Collector's pod", f"{one.collector_cores:g}"],
        ["memory of a Collector for waiting spans", f"{one.collector_bytes / GB:g} GB"],
        [
            "a broker's node",
            f"{one.broker_cores:g} cores, {one.broker_bytes / MB:.0f} MB/s of disk",
        ],
        ["copies of a message", f"{one.copies}, each as expensive for a broker as the first"],
        [
            "a published message is confirmed by all copies",
            f"in {one.confirm * 1000:g} ms; its consumer waits",
        ],
        ["a store that is one process", f"{one.store_cores:g} cores"],
        ["one Prometheus", f"{one.prometheus_series / 1e6:g} million series"],
        ["a trace is live in Tempo for", f"{one.trace_seconds:g} s"],
        ["traces worth storing", f"{one.trace_bytes / GB:.0f} GB a day; beyond it, tail sampling"],
        ["partitions", f"for {one.growth:g} times the rate, and a power of two"],
        ["replicas of a service", f"at least {one.least}"],
    ]
    return table(["Assumed", ""], rows)


def answer(figures: Mapping[str, Any], rate: float, wait: float) -> str:
    """What this rate needs, and what reaches its limit before it.

    Args:
        wait: Seconds that a handler waits for others.
    """
    passed = needs(rate, costs_of(figures), Assumptions(wait=wait)).passed
    walls = (
        _walls(passed)
        if passed
        else "Nothing that exists only once reaches its limit before this rate."
    )
    return f"{needs_of(figures, rate, wait=wait)}\n\n{walls}"


def needs_of(figures: Mapping[str, Any], *rates: float, wait: float = 0) -> str:
    """A table of what these rates need.

    Args:
        wait: Seconds that a handler waits for others.
    """
    costs = costs_of(figures)
    found = [needs(rate, costs, Assumptions(wait=wait)) for rate in rates]

    def row(name: str, cells: Iterable[str]) -> list[str]:
        return [name, *cells]

    rows = [
        row("partitions of each channel", (f"{one.partitions:,}" for one in found)),
        *(
            row(f"replicas of {name}", (f"{one.replicas[name]:,}" for one in found))
            for name in OURS
        ),
        row("Collectors", map(_collectors, found)),
        row("ordinary traces stored", (f"{one.share} %" for one in found)),
        row("nodes of the broker", (f"{one.brokers:,}" for one in found)),
        *(
            row(f"cores at work: {name}", (_number(one.cores[name]) for one in found))
            for name in found[0].cores
        ),
        *(
            row(f"disk a day: {name}", (_bytes(one.disk[name]) for one in found))
            for name in found[0].disk
        ),
        row("series in Prometheus", (f"{rounded(one.series):,.0f}" for one in found)),
        row("the next limit", (_next(one.wall) for one in found)),
    ]
    return table(["", *(f"{rate:,.0f} orders/s" for rate in rates)], rows)


def _collectors(one: Needs) -> str:
    first, second = one.collectors
    return f"{first} + {second} in two layers" if first else f"{second}"


def _number(number: float) -> str:
    return f"{number:,.1f}" if number < 10 else f"{number:,.0f}"


def _bytes(number: float) -> str:
    return f"{number / 1e12:.1f} TB" if number >= 1e12 else f"{number / GB:.0f} GB"


def _next(wall: Wall | None) -> str:
    return f"{wall.what}, at {rounded(wall.rate):,.0f}" if wall else "none known"


def _walls(walls: Iterable[Wall]) -> str:
    rows = [
        [wall.what, f"{rounded(wall.rate):,.0f}", wall.helps]
        for wall in sorted(walls, key=lambda one: one.rate)
    ]
    return table(["What reaches its limit", "at orders/s", "what helps"], rows)


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number > 1)}"


def charts(figures: Mapping[str, Any]) -> dict[str, str]:
    """The charts by their file names."""
    windows = figures["cost"]["windows"]
    spreads = {name: Spread.of(one["cpu_ms"][name] for one in windows) for name in NAMES}
    cpu = [
        Bar(
            NAMES[name],
            spread,
            "ours" if name in OURS else "theirs",
        )
        for name, spread in sorted(spreads.items(), key=lambda one: -one[1].median)
        if spread.median >= 0.005
    ]
    drains = []
    for one, rate in predictions(figures):
        if one["wait"]:
            name = f"{_many(one['partitions'], 'partition')}, {_many(one['replicas'], 'replica')}"
            drains += [
                Bar(name, Spread.of([one["rate"]]), "ours"),
                Bar("by the model", Spread.of([rate]), "plain"),
            ]
    return {
        "scaling-cpu.svg": bars("CPU seconds per 1,000 orders", cpu),
        "scaling-replicas.svg": bars(
            "Orders a second of a backlog, by partitions and replicas", drains
        ),
    }
