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
    return {"variants": table(head, rows), "summary": _summary(rounds), "bytes": sizes}


def _summary(rounds: Any) -> str:
    """The variants that most users choose from, in a sentence."""
    ours, recipe, service = (
        ratios(rounds, "cpu_us", name, "bare").text() for name in ("ours", "recipe", "service")
    )
    return (
        "CPU time per message and hop, where FastStream without telemetry takes 1:"
        f" {ours} with our traces in five lines, {recipe} with FastStream's docs recipe,"
        f" {service} for the whole service with all signals, retries and dead letters."
    )


def _bytes(rounds: Any, name: str, what: str) -> str:
    found = [one[name] for one in rounds]
    if not found[0][f"{what}s"]:
        return "none"
    return Spread.of(one[f"{what}_bytes"] / one[f"{what}s"] for one in found).text(0)
