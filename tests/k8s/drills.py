"""What happens to pods: each drill is a fault under load, as those of `make drills` are."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from e2e.poll import poll_until

from bench.drills.flow import SERVICES
from bench.drills.ledger import Ledger
from bench.drills.promises import IN_FLIGHT, Figures, Promise
from bench.drills.samples import body, message

from .cluster import Cluster

BACKLOG = 3000
"""Messages: so many that one replica is at work on them while others come and go."""
COLLECTOR = "otel-collector"


def rolling(ledger: Ledger, cluster: Cluster) -> Figures:
    with ledger.load() as intake:
        began = time.time()
        cluster.kubectl("rollout", "restart", *(f"deployment/{name}" for name in SERVICES))
        cluster.wait_until_well(*SERVICES)
        cluster.wait_until_ended(*SERVICES)
        for service in SERVICES:
            ledger.interrupted(service, began)
        ledger.note(f"took {time.time() - began:.0f} s")
    turned_away = intake.sent - len(intake.placed)
    ledger.must(not turned_away, f"{turned_away} orders turned away: {intake.described()}")
    return ledger.reckon(intake)


def kill(ledger: Ledger, cluster: Cluster) -> Figures:
    with ledger.load() as intake:
        for service in SERVICES:
            (pod,), began = cluster.pods(service), time.time()
            cluster.kill(pod["metadata"]["name"])
            cluster.wait_until_well(service)
            ledger.interrupted(service, began, killed=True)
            time.sleep(3)
            ledger.interrupted(service, began)
    return ledger.reckon(intake, patience=45)


def scale(ledger: Ledger, cluster: Cluster) -> Figures:
    """A message more for each order that is placed: what injects them is faster than orders is."""
    service, channel = "payments", "orders.placed"

    def backlog() -> int:
        unread = ledger.site.channels.unread()
        return sum(count for (name, _), count in unread.items() if name == channel)

    began = time.time()
    with ledger.load() as intake:
        with cluster.without(service):
            ledger.inject([message(channel, body(channel)) for _ in range(BACKLOG)])
        left = []
        for replicas in (3, 1):
            cluster.scale(service, replicas)
            left.append(backlog())
            poll_until(lambda: backlog() <= 0.8 * left[-1], f"{replicas} replicas to get on")
        cluster.wait_until_ended(service)
        ledger.interrupted(service, began)
    ledger.note("{} messages waited for 3 replicas, {} for 1".format(*left))
    ledger.must(all(left), "the backlog was gone before the replicas were there")
    return ledger.reckon(intake)


def broker_node(ledger: Ledger, cluster: Cluster) -> Figures:
    node = f"{cluster.broker}-1"
    volume = cluster.volume_of(node)
    with ledger.load() as intake:
        began = time.time()
        cluster.kill(node)
        cluster.wait_until_well(cluster.broker)
        ledger.interrupted(cluster.broker, began)
        ledger.note(f"back after {time.time() - began:.0f} s")
        time.sleep(5)
    ledger.must(cluster.volume_of(node) == volume, f"{node} has another volume")
    return ledger.reckon(intake)


def gateway(ledger: Ledger, cluster: Cluster) -> Figures:
    """What it has not handed on is in the queue on its volume.

    It is killed twice: what reached the stores before goes on doing so, until it connects anew.
    """
    pod = f"{COLLECTOR}-0"
    volume = cluster.volume_of(pod)
    with ledger.load() as intake:
        with cluster.without_policy("stores"):
            for _ in range(2):
                began = time.time()
                cluster.kill(pod)
                cluster.wait_until_well(COLLECTOR)
                ledger.note(f"back after {time.time() - began:.0f} s")
                time.sleep(8)
        time.sleep(3)
    ledger.must(cluster.volume_of(pod) == volume, f"{pod} has another volume")
    return ledger.reckon(intake)


def bad_release(ledger: Ledger, cluster: Cluster) -> Figures:
    """An image that is no service's."""
    service = "payments"
    before = cluster.ready_pods(service)
    with ledger.load() as intake:
        image = cluster.image(COLLECTOR)
        cluster.kubectl("set", "image", f"deployment/{service}", f"service={image}")
        poll_until(lambda: len(cluster.pods(service)) > len(before), "a pod of the bad release")
        time.sleep(15)
        ledger.must(cluster.ready_pods(service) == before, "the old release does not go on")
        cluster.kubectl("rollout", "undo", f"deployment/{service}")
        cluster.wait_until_well(service)
    ledger.must(cluster.ready_pods(service) == before, "the old pod was replaced")
    return ledger.reckon(intake)


@dataclass(frozen=True)
class Drill:
    act: Callable[[Ledger, Cluster], Figures]
    promise: Promise


DRILLS = {
    drill.act.__name__: drill
    for drill in (
        Drill(rolling, Promise("rolling update of all services", f"{IN_FLIGHT}; none turned away",
                               duplicates="in flight")),
        Drill(kill, Promise("a pod of each service killed", IN_FLIGHT,
                            "only what the dead process had not exported",
                            duplicates="in flight", missing="unexported")),
        Drill(scale, Promise("scaled 1 -> 3 -> 1 while a backlog is drained", IN_FLIGHT,
                             duplicates="in flight")),
        Drill(broker_node, Promise("one of the broker's three nodes killed", IN_FLIGHT,
                                   duplicates="in flight")),
        Drill(gateway, Promise("all stores out of reach, the Collector killed twice meanwhile")),
        Drill(bad_release, Promise("release that never gets ready, then undone")),
    )
}  # fmt: skip
