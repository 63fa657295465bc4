"""How the cost grows: with flows at once, the size of bodies, partitions and consumers."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

from ..figures import ratios, table, values
from ..measured.flow import group
from ..run import SIZE, Load, measure, started
from ..sites import KafkaSite
from ..variants import VARIANTS
from . import Bench, Round, say

FLOWS = {1: Load(150, warm_up=20), 10: Load(600, warm_up=60), 100: Load(1000, warm_up=200)}
"""Flows at once, and how many in all."""
BODIES = {
    100: Load(1000, warm_up=100),
    10_000: Load(1000, warm_up=100, size=10_000),
    500_000: Load(60, warm_up=10, size=500_000),
}
CONSUMERS = (1, 2, 4, 8)
"""Processes of a service, each with a partition of its own."""
EACH = Load(8000, warm_up=800, hops=1)
COMPARED = ("bare", "service")
ROUNDS = 2


def run(bench: Bench) -> Any:
    site = bench.kafka
    if site is None:
        return {"missing": "Kafka"}
    flows: dict[str, Callable[[], Round]] = {}
    bodies: dict[str, Callable[[], Round]] = {}
    consumers: dict[str, Callable[[], Round]] = {}
    for name in COMPARED:
        for number, load in FLOWS.items():
            flows[f"{name} {number}"] = partial(at_once, bench, site, name, number, load)
        for size, load in BODIES.items():
            bodies[f"{name} {size}"] = partial(of_size, bench, name, load)
        for number in CONSUMERS:
            consumers[f"{name} {number}"] = partial(of_consumers, bench, site, name, number)
    result = {}
    for what, runs in (("flows", flows), ("bodies", bodies), ("consumers", consumers)):
        say(f" {what}")
        result[what] = bench.interleaved(runs)
    return result


def at_once(bench: Bench, site: KafkaSite, name: str, flows: int, load: Load) -> Round:
    load = bench.load(load)

    def drive(channels: Sequence[str]) -> None:
        site.keep_in_flight(channels, flows, load.published, load.size)

    return _figures(measure(VARIANTS[name], site, bench.sink, load, drive=drive))


def of_size(bench: Bench, name: str, load: Load) -> Round:
    return _figures(measure(VARIANTS[name], bench.site, bench.sink, bench.load(load)))


def _figures(sample: Any) -> Round:
    return {"cpu_us": sample.cpu_us, "rate": sample.rate}


def of_consumers(bench: Bench, site: KafkaSite, name: str, number: int) -> Round:
    """All processes together get the same load, over as many partitions."""
    load = bench.load(EACH)
    warm_up, messages = load.warm_up // number, load.messages // number
    with site.created(1, partitions=number) as channels, ExitStack() as stack:
        plan = {"channels": channels, "warm_up": warm_up, "handled": messages}
        processes = [
            stack.enter_context(started(VARIANTS[name], site, bench.sink, plan))
            for _ in range(number)
        ]
        for one in processes:
            one.report()  # it consumes
        site.wait_for_members(group(channels[0]), number)
        site.fill(channels[0], (warm_up + messages) * number, SIZE)
        with ThreadPoolExecutor(number) as readers:
            told = list(readers.map(lambda one: one.report(), processes))
    handled = messages * number
    return {
        "cpu_us": sum(one["cpu"] for one in told) / handled * 1e6,
        "rate": handled / max(one["wall"] for one in told),
    }


def tables(result: Any) -> dict[str, str]:
    if "missing" in result:
        return {}
    kinds = {
        "flows": (list(FLOWS), "Flows at once", "{:,}"),
        "bodies": (list(BODIES), "Bytes of a body", "{:,}"),
        "consumers": (list(CONSUMERS), "Partitions, and processes", "{:,}"),
    }
    made = {}
    for what, (steps, title, form) in kinds.items():
        rounds = result[what]
        rows = [
            [
                form.format(step),
                values(rounds, "cpu_us", f"bare {step}").text(0),
                values(rounds, "cpu_us", f"service {step}").text(0),
                ratios(rounds, "cpu_us", f"service {step}", f"bare {step}").text(),
                values(rounds, "rate", f"bare {step}").text(0),
                values(rounds, "rate", f"service {step}").text(0),
            ]
            for step in steps
        ]
        head = [
            title,
            "bare, µs",
            "service, µs",
            "ratio",
            "bare, messages/s",
            "service, messages/s",
        ]
        made[what] = table(head, rows)
    return made
