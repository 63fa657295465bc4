"""A backlog that one service drains: rate, memory, and lag against time."""

from functools import partial
from typing import Any

from ..figures import MB, table
from ..run import Load, measure
from ..variants import VARIANTS, as_users_run
from . import Bench, Round

LOAD = Load(100_000, warm_up=1000, hops=1)
COMPARED = ("recipe", "service")
ROUNDS = 1


def run(bench: Bench) -> Any:
    load = bench.load(LOAD)
    runs = {name: partial(one, bench, name, load) for name in COMPARED}
    (only,) = bench.interleaved(runs)
    return {"messages": load.messages, "runs": only}


def one(bench: Bench, name: str, load: Load) -> Round:
    variant = as_users_run(VARIANTS[name])
    sample = measure(variant, bench.site, bench.sink, load, count_spans=True, may_lose=True)
    told = sample.told
    return {
        "rate": sample.rate,
        "cpu_us": sample.cpu_us,
        "peak_rss": told["peak_rss"],
        "spans": told["spans"],
        "lost": max(0, told["spans"] - sample.arrived["spans"]),
        "progress": told["progress"],
    }


def tables(result: Any) -> dict[str, str]:
    runs = result["runs"]
    rows = [
        [
            VARIANTS[name].title,
            f"{runs[name]['rate']:.0f}",
            f"{runs[name]['rate'] / runs['recipe']['rate']:.2f}",
            f"{runs[name]['peak_rss'] / MB:.0f}",
            f"{runs[name]['lost']:,} of {runs[name]['spans']:,}",
        ]
        for name in COMPARED
    ]
    head = ["", "messages/s", "to the recipe", "memory at most, MB", "spans lost"]
    return {"backlog": table(head, rows)}
