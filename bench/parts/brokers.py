"""The whole service on each broker, to FastStream without telemetry on the same broker."""

from functools import partial
from typing import Any

from ..figures import ratios, table, values
from ..measured.brokers import BROKERS
from ..run import Load
from ..variants import VARIANTS
from . import Bench
from .variants import one

LOAD = Load(500, warm_up=50)
COMPARED = ("bare", "recipe-prometheus", "service")


def run(bench: Bench) -> Any:
    load = bench.load(LOAD)
    runs = {
        f"{broker} {name}": partial(
            one, Bench({broker: site}, bench.sink, bench.rounds, bench.quick), VARIANTS[name], load
        )
        for broker, site in bench.sites.items()
        for name in COMPARED
    }
    return {
        "messages": load.messages,
        "brokers": list(bench.sites),
        "rounds": bench.interleaved(runs),
    }


def tables(result: Any) -> dict[str, str]:
    rounds, brokers = result["rounds"], result["brokers"]
    rows = [
        [
            VARIANTS[name].title,
            *(ratios(rounds, "cpu_us", f"{x} {name}", f"{x} bare").text() for x in brokers),
        ]
        for name in COMPARED
    ]
    absolute = (values(rounds, "cpu_us", f"{x} bare").text(0) for x in brokers)
    rows.append(["the first row in µs", *absolute])
    return {"brokers": table(["", *(BROKERS[x].title for x in brokers)], rows)}
