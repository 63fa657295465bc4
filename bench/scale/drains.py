"""How fast a backlog is handled, by partitions and replicas."""

import time
from typing import Any

from ..parts import say
from .meters import between, read
from .site import DRAIN_SECONDS, SCALED, Site

STEPS = (1, 2, 4)
"""Partitions of each channel, and replicas of each scaled service."""
WAIT = 1.0
"""Seconds that a handler waits, as for another service: so long that other work on the machine
counts for little."""
SECONDS = 10.0
"""How long a backlog should take."""
BUSY = 1500
"""Orders of a backlog whose handlers don't wait."""


def run(site: Site) -> list[dict[str, Any]]:
    """Drain a backlog with each number of partitions and replicas.

    With handlers that wait, and for the least and the most also with handlers that don't.
    """
    least, most = STEPS[0], STEPS[-1]
    site.scale(least)
    found = [drain(site, least, least, 0)]
    for partitions in STEPS:
        site.stop_consumers(WAIT)
        if partitions > least:
            site.add_partitions(partitions)
        for replicas in STEPS:
            site.scale(replicas)
            found.append(drain(site, partitions, replicas, WAIT))
    site.stop_consumers(0)
    site.scale(most)
    found.append(drain(site, most, most, 0))
    site.scale(least)
    return found


def drain(site: Site, partitions: int, replicas: int, wait: float) -> dict[str, Any]:
    """Put a backlog into the first channel, and time the last scaled service's messages.

    From a tenth of them to nine tenths: neither the start counts, nor when a replica has nothing
    left to do.
    """
    whole = min(partitions, replicas) / wait * SECONDS if wait else BUSY
    orders = round(site.seconds(whole))
    start, before = site.dispatched(), read(site.stack.project)
    site.publish(orders, partitions)
    points = [(time.monotonic(), 0)]
    ends = time.monotonic() + DRAIN_SECONDS
    while points[-1][1] < orders:
        if time.monotonic() > ends:
            raise AssertionError(
                f"only {points[-1][1]} of {orders} orders in {DRAIN_SECONDS:.0f} s"
            )
        time.sleep(0.1)
        points.append((time.monotonic(), site.dispatched() - start))
    used = between(before, read(site.stack.project))
    rate = steady_rate(points, orders)
    say(f"  {partitions} x {replicas}, waiting {wait:g} s: {rate:.1f} orders/s")
    return {
        "partitions": partitions,
        "replicas": replicas,
        "wait": wait,
        "orders": orders,
        "rate": rate,
        "elsewhere": used.elsewhere,
        "seconds": used.seconds,
        "cpu_s": dict(sorted(used.cpu.items())),
    }


def steady_rate(points: list[tuple[float, int]], orders: int) -> float:
    """Orders per second between a tenth of the orders and nine tenths.

    Args:
        points: Seconds, and orders that were handled by then.
    """
    first = next(one for one in points if one[1] >= orders / 10)
    last = next(one for one in points if one[1] >= orders * 9 / 10)
    if last[0] == first[0]:
        raise AssertionError(f"{orders} orders were handled too fast to be timed")
    return (last[1] - first[1]) / (last[0] - first[0])


MANY = 64
LOOK_SECONDS = 15.0
WATCHED = ("lag", "kafka", "prometheus", *SCALED)


def many_partitions(site: Site) -> dict[str, Any]:
    """Cores that parts take at rest, with few partitions and with many."""

    def look() -> dict[str, float]:
        time.sleep(5)
        before = read(site.stack.project)
        time.sleep(site.seconds(LOOK_SECONDS))
        used = between(before, read(site.stack.project))
        return {name: used.cpu[name] / used.seconds for name in WATCHED}

    few = look()
    partitions = site.partitions()
    site.add_partitions(MANY)
    return {"few": partitions, "many": MANY, "cores": {"few": few, "many": look()}}
