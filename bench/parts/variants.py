"""CPU time and rate of every variant, and the bytes that its spans take."""

from functools import partial
from typing import Any

from ..figures import Spread, ratios, table, values
from ..run import Load, measure
from ..variants import VARIANTS, Variant
from . import Bench, Round

LOAD = Load(1500, warm_up=150)


def run(bench: Bench) -> Any:
    load = bench.load(LOAD)
    runs = {name: partial(one, bench, variant, load) for name, variant in VARIANTS.items()}
    return {"messages": load.messages, "hops": load.hops, "rounds": bench.interleaved(runs)}


def one(bench: Bench, variant: Variant, load: Load) -> Round:
    sample = measure(variant, bench.site, bench.sink, load)
    return {
        "cpu_us": sample.cpu_us,
        "rate": sample.rate,
        "spans": sample.arrived["spans"],
        "span_bytes": sample.arrived["spans bytes"],
        "logs": sample.arrived["logs"],
        "log_bytes": sample.arrived["logs bytes"],
    }


def tables(result: Any) -> dict[str, str]:
    rounds = result["rounds"]
    rows = [
        [
            variant.title,
            ratios(rounds, "cpu_us", name, "bare").text(),
            ratios(rounds, "rate", name, "bare").text(),
            values(rounds, "cpu_us", name).text(0),
        ]
        for name, variant in VARIANTS.items()
    ]
    head = ["", "CPU time per message and hop, to the first row", "messages/s, to the first row",
            "CPU time, µs"]  # fmt: skip
    bytes_rows = [
        [VARIANTS[name].title, over, *(_bytes(rounds, name, what) for what in ("span", "log"))]
        for name, over in (("recipe", "gRPC"), ("service", "http/protobuf"))
    ]
    sizes = table(["", "over", "KB per 1,000 spans", "KB per 1,000 log records"], bytes_rows)
    summary = table(head[:3], (row[:3] for row in rows))
    return {"variants": table(head, rows), "summary": summary, "bytes": sizes}


def _bytes(rounds: Any, name: str, what: str) -> str:
    found = [one[name] for one in rounds]
    if not found[0][f"{what}s"]:
        return "none"
    return Spread.of(one[f"{what}_bytes"] / one[f"{what}s"] for one in found).text(0)
