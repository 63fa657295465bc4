"""Memory of a service after a few hundred messages, and the time until it is there."""

from functools import partial
from typing import Any

from ..figures import MB, differences, table, values
from ..run import Load, measure
from ..variants import MEMORY, Variant
from . import Bench, Round

LOAD = Load(300, warm_up=30)
ROUNDS = 3


def run(bench: Bench) -> Any:
    load = bench.load(LOAD)
    runs = {name: partial(one, bench, variant, load) for name, variant in MEMORY.items()}
    return {"messages": load.messages, "rounds": bench.interleaved(runs)}


def one(bench: Bench, variant: Variant, load: Load) -> Round:
    site, sink = bench.site, bench.sink

    def drive(channels: Any) -> None:
        site.fill(channels[0], load.published, load.size)

    told = measure(variant, site, sink, load, drive=drive).told
    return {"rss": told["rss"], "imported": told["imported"], "ready": told["ready"]}


def tables(result: Any) -> dict[str, str]:
    rounds = result["rounds"]
    rows = [
        [
            variant.title,
            values(rounds, "rss", name, MB).text(0),
            differences(rounds, "rss", name, "bare", MB).text(0) if name != "bare" else "",
            values(rounds, "imported", name).text(1),
            values(rounds, "ready", name).text(1),
        ]
        for name, variant in MEMORY.items()
    ]
    head = ["", "memory, MB", "above the first row, MB", "imported after, s", "consuming after, s"]
    return {"memory": table(head, rows)}
