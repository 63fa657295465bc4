"""Where the CPU time of a message and hop goes, by part."""

from typing import Any

from ..figures import table
from ..measured.sampling import THREADS
from ..run import Load, measure
from ..variants import VARIANTS
from . import Bench

LOAD = Load(4000)
ROUNDS = 1
SHOWN = ("bare-tuned", "service-disabled", "service-sampled", "service")


def run(bench: Bench) -> Any:
    load = bench.load(LOAD)
    return {name: one(bench, name, load) for name in SHOWN}


def one(bench: Bench, name: str, load: Load) -> dict[str, float]:
    """Microseconds by part."""
    sample = measure(VARIANTS[name], bench.site, bench.sink, load, profile=True)
    found = sample.told["profile"]
    main = found["main"] / sample.handled * 1e6
    samples = sum(found["parts"].values())
    parts = {part: main * number / samples for part, number in found["parts"].items()}
    return parts | {THREADS: max(0.0, sample.cpu_us - main)}


def tables(result: Any) -> dict[str, str]:
    first, last = result[SHOWN[0]], result[SHOWN[-1]]
    names = sorted({part for of in result.values() for part in of},
                   key=lambda part: (first.get(part, 0) < 1, -last.get(part, 0)))  # fmt: skip
    rows = [[part, *(f"{result[name].get(part, 0):.0f}" for name in SHOWN)] for part in names]
    rows.append(["**all**", *(f"**{sum(result[name].values()):.0f}**" for name in SHOWN)])
    return {"profile": table(["µs per message and hop", *(_title(name) for name in SHOWN)], rows)}


def _title(name: str) -> str:
    return {
        "bare-tuned": "FastStream with the loop and log level of a bake",
        "service": "the whole service",
        "service-sampled": "sampled at 10 %",
        "service-disabled": "SDK disabled",
    }[name]
