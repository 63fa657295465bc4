"""What one order takes of each part: CPU time, memory, bytes and series."""

import time
from collections.abc import Mapping
from typing import Any

from ..parts import say
from .meters import between, read
from .site import EXPORT_SECONDS, FIRST, Site

IDLE_SECONDS = 20.0
LOADS = ((30.0, 15.0), (90.0, 15.0))
"""Orders per second, and for how many seconds."""
FLAT_OUT = 2000
"""Orders that are placed as fast as they are answered."""
WARM_UP = 2000
"""The first orders cost more, above all in the broker: Java compiles."""
TAIL = (60.0, 45.0)
"""As of `LOADS`: as long as a trace waits for its choice."""
LAYERS = (90.0, 15.0)


def idle(site: Site) -> dict[str, Any]:
    """Cores of each part while no order comes."""
    before = read(site.stack.project)
    time.sleep(site.seconds(IDLE_SECONDS))
    used = between(before, read(site.stack.project))
    return {
        "seconds": used.seconds,
        "elsewhere": used.elsewhere,
        "cores": {name: cpu / used.seconds for name, cpu in sorted(used.cpu.items())},
    }


def window(
    site: Site, idle_cores: Mapping[str, float], orders: int, rate: float | None, wait: float = 0
) -> dict[str, Any]:
    """Place orders, and wait until all that follows from them is stored.

    Args:
        idle_cores: Of each part; subtracted.
        rate: Orders per second; by default as fast as they are answered.
        wait: Seconds more until everything is stored.
    """
    counted, before = site.counted(), read(site.stack.project)
    reached = site.place(orders, rate)
    busiest = read(site.stack.project)
    site.wait_until_drained()
    time.sleep(EXPORT_SECONDS + wait)
    after = read(site.stack.project)
    since = {name: number - counted[name] for name, number in site.counted().items()}
    used = between(before, after)
    cpu_ms = {
        name: max(0.0, cpu - idle_cores.get(name, 0) * used.seconds) / orders * 1000
        for name, cpu in sorted(used.cpu.items())
    }
    say(f"  {reached:.0f} orders/s: {sum(cpu_ms.values()):.1f} ms of CPU an order")
    return {
        "rate": reached,
        "orders": orders,
        "seconds": used.seconds,
        "elsewhere": used.elsewhere,
        "cpu_ms": cpu_ms,
        "memory": dict(sorted(busiest.memory.items())),
        "counted": {name: number / orders for name, number in sorted(since.items())},
    }


def run(site: Site) -> dict[str, Any]:
    """The cost of an order at several rates, and what it leaves on disks."""
    site.place(WARM_UP)
    site.wait_until_drained()
    site.settle_stores()
    resting, disk, windows = idle(site), site.disk(), []
    for rate, seconds in LOADS:
        orders = round(rate * site.seconds(seconds))
        windows.append(window(site, resting["cores"], orders, rate))
    windows.append(window(site, resting["cores"], round(site.seconds(FLAT_OUT)), None))
    site.settle_stores()
    placed = sum(one["orders"] for one in windows)
    grown = {name: (size - disk[name]) / placed for name, size in site.disk().items()}
    return {"idle": resting, "windows": windows, "disk": grown, "series": site.series()}


def sampled(site: Site, so_far: Mapping[str, Any]) -> dict[str, Any]:
    """The same with tail sampling."""
    site.change("TRACE_SAMPLING=tail\nOTEL_EXPORTER_OTLP_ENDPOINT=\n")
    rate, seconds = TAIL
    chosen = site.limits()["tail_seconds"] + 5
    return window(site, so_far["cost"]["idle"]["cores"], round(rate * seconds), rate, chosen)


def layered(site: Site, so_far: Mapping[str, Any]) -> dict[str, Any]:
    """The same with two Collectors, one after the other, and every trace stored."""
    cores = so_far["cost"]["idle"]["cores"]
    cores = {**cores, FIRST: cores["otel-collector"]}  # what Collectors take at rest is alike
    with site.two_layers():
        rate, seconds = LAYERS
        return window(site, cores, round(rate * site.seconds(seconds)), rate)
