"""One stack for all tests, brought down whatever happens; tests that disturb it come last."""

import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from .apis import Answer, Grafana, Loki, Prometheus, Span, post
from .baked import Baked
from .poll import poll_until
from .stack import Stack
from .stores import STORES, TraceStore
from .tables import EDGES, ORDERS

_unproved: list[str] = []
_last_logs: list[str] = []


MARKERS = {
    "disturbs_the_stack": "stops containers and starts them again, so it runs after the others",
    "ends_the_stack": "stops the containers, so it runs last",
}


EVERY_BROKER = "every_broker"
"""The tests of what a broker may change. They take a few minutes: `-m every_broker`."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: [bool(item.get_closest_marker(one)) for one in reversed(MARKERS)])


def pytest_configure(config: pytest.Config) -> None:
    every_broker = {EVERY_BROKER: "tests what the broker may change, in a few minutes"}
    for name, meaning in {**MARKERS, **every_broker}.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _unproved:
        terminalreporter.section("not proved by this run")
        for line in _unproved:
            terminalreporter.write_line(line)
    for logs in _last_logs:
        terminalreporter.section("what the containers said last")
        terminalreporter.write_line(logs)


@contextmanager
def started(project: Baked, session: pytest.Session) -> Iterator[None]:
    """Start a project, and remove all that it has made whatever happens."""
    # Ended from outside, as by a timeout, it cleans up as it does after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        try:
            _unproved.extend(project.prepare_images())
            project.up()
        except AssertionError as error:
            _last_logs.append(project.last_logs())
            pytest.exit(f"the project did not come up: {error}", returncode=1)
        yield
        if session.testsfailed:
            _last_logs.append(project.last_logs())
    finally:
        project.down()


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """The default project, but for what TRACES and BROKER name, baked and up."""
    with tempfile.TemporaryDirectory(prefix="e2e-") as folder:
        stack = Stack.bake(Path(folder))
        with started(stack, request.session):
            yield stack


@pytest.fixture(scope="session")
def store(stack: Stack) -> TraceStore:
    """What keeps the traces, whichever it is."""
    return STORES[stack.traces](stack.url(stack.traces_port))


@pytest.fixture(scope="session")
def loki(stack: Stack) -> Loki:
    return Loki(stack.url("LOKI_PORT"))


@pytest.fixture(scope="session")
def prometheus(stack: Stack) -> Prometheus:
    return Prometheus(stack.url("PROMETHEUS_PORT"))


@pytest.fixture(scope="session")
def grafana(stack: Stack) -> Grafana:
    if "grafana" not in stack.services:
        pytest.skip("there is no image of Grafana")
    return Grafana(stack.url("GRAFANA_PORT"), stack.password())


@dataclass(frozen=True)
class Order:
    """An order that was placed, and the trace that it said it would leave."""

    answer: Answer

    @property
    def trace_id(self) -> str:
        return str(self.answer.body["trace_id"])


@pytest.fixture(scope="session")
def orders(stack: Stack) -> dict[str, Order]:
    """One order of each kind, placed."""
    return {
        kind: Order(
            post(
                stack.url("ORDERS_PORT") + "/orders",
                {"sku": "keyboard", "quantity": 1, "currency": "EUR", **what},
            )
        )
        for kind, what in ORDERS.items()
    }


@pytest.fixture(scope="session")
def traces(orders: dict[str, Order], store: TraceStore) -> dict[str, list[Span]]:
    """Each order's trace, as soon as it has as many spans as it ought to have."""

    def whole(kind: str) -> list[Span] | None:
        spans = store.trace(orders[kind].trace_id)
        return spans if len(spans) > len(EDGES[kind]) else None

    return {
        kind: poll_until(lambda kind=kind: whole(kind), f"the whole trace of the {kind} order")  # type: ignore[misc]
        for kind in orders
    }
