"""How much the stack takes: series that do not grow with what happens, and memory."""

import time

import pytest

from .apis import Prometheus
from .conftest import Order
from .load import Load, place
from .poll import poll_until
from .stack import Stack
from .stores import TraceStore

pytestmark = pytest.mark.disturbs_the_stack

SERVICES = ["orders", "payments", "shipping", "notifications"]
WINDOW_SECONDS = 3600
SLOWEST_METRICS_SECONDS = 75  # they are pushed, and scraped, every 15 s: five times
MEMORY_LIMIT = int(1.5 * 2**30)
HEAP_OF_TRACES = 2**29  # over and above it, where traces are kept in memory

Labels = frozenset[tuple[str, str]]

# What is told of services, by them and of their messages; the stack's own series are not ours, nor
# are alerts: a scrape that meets a service while it starts again may make one.
OURS = (
    '{job="services",__name__!~"ALERTS.*"}',
    '{service_name!="",__name__!~"ALERTS.*"}',
    '{__name__=~"traces_.+"}',
)


def series(prometheus: Prometheus) -> set[Labels]:
    """All series that there ever were, without the address that a scrape went to."""
    found = (one for selector in OURS for one in prometheus.ever(selector, WINDOW_SECONDS))
    return {
        frozenset(
            (name, value)
            for name, value in labels.items()
            # Of the scrape itself; addresses change hands between containers that start anew.
            if not (name == "instance" and ":" in value)
        )
        for labels in found
    }


def settled(prometheus: Prometheus) -> set[Labels]:
    """The series when all is handled, and whatever there is to tell of it has been told."""
    poll_until(
        lambda: prometheus.values("sum(messaging_consumer_lag)") == [0.0],
        "consumers that have caught up",
    )
    time.sleep(SLOWEST_METRICS_SECONDS)
    return series(prometheus)


@pytest.fixture(scope="module")
def warm(stack: Stack, orders: dict[str, Order], prometheus: Prometheus) -> set[Labels]:
    """All that can happen has happened, in each partition of each topic."""
    url = stack.url("ORDERS_PORT")
    assert place(url, 300) == 300
    stack.restart(*SERVICES)
    assert place(url, 100) == 100
    return settled(prometheus)


def test_orders_retries_and_restarts_make_no_series(
    warm: set[Labels], stack: Stack, prometheus: Prometheus
) -> None:
    url = stack.url("ORDERS_PORT")
    assert place(url, 1000) == 1000
    stack.restart(*SERVICES)
    assert place(url, 100) == 100
    new = settled(prometheus) - warm
    assert new == set(), sorted(map(sorted, new))[:10]


def test_a_second_replica_adds_one_set_of_its_own(
    warm: set[Labels], stack: Stack, prometheus: Prometheus
) -> None:
    before = series(prometheus)
    stack.scale("payments", 2)
    try:
        with Load(stack.url("ORDERS_PORT"), seconds=120):
            received = 'messaging_receive_delay_seconds_count{service_name="payments"}'
            replicas = f"count(count by (instance) ({received}))"
            poll_until(lambda: prometheus.values(replicas) == [2.0], "metrics of both replicas")
        new = series(prometheus) - before
    finally:
        stack.scale("payments", 1)
    instances = {dict(labels).get("instance") for labels in new} - {None}
    assert len(instances) == 1, instances

    def anonymous(found: set[Labels]) -> set[Labels]:
        return {
            frozenset((name, value) for name, value in labels if name != "instance")
            for labels in found
        }

    assert anonymous(new) - anonymous(before) == set()


def test_the_stack_fits_its_memory(
    stack: Stack, orders: dict[str, Order], store: TraceStore
) -> None:
    with Load(stack.url("ORDERS_PORT"), rate=5, seconds=60):
        used = poll_until(stack.memory, "figures of memory")
    table = "\n".join(f"{name:<16}{size / 2**20:7.0f} MiB" for name, size in used.items())
    print(f"\n{table}\n{'together':<16}{sum(used.values()) / 2**20:7.0f} MiB")
    most = MEMORY_LIMIT + (HEAP_OF_TRACES if store.in_memory else 0)
    assert sum(used.values()) < most, table
