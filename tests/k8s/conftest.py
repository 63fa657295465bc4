"""One cluster for all tests; what was made in it is removed whatever happens."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import e2e.conftest
import pytest
from e2e.conftest import grafana, loki, orders, prometheus, pytest_configure, store, traces

from bench.drills import report
from bench.drills.ledger import Ground

from .cluster import Cluster

# Fixtures, and the markers of the tests that are shared.
__all__ = ("grafana", "loki", "orders", "prometheus", "pytest_configure", "store", "traces")

_drills: dict[str, str] = {}

LATER = ("test_lag.py", "test_drills.py", "test_keda.py")
"""What disturbs the others."""

RATE = 20.0
"""Orders a second, in drills."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LATER.index(item.path.name) + 1 if item.path.name in LATER else 0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    e2e.conftest.pytest_terminal_summary(terminalreporter)
    if _drills:
        terminalreporter.section("drills")
        terminalreporter.write_line(report.table(_drills))


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The default project, but for what TRACES and BROKER name, baked and up."""
    with tempfile.TemporaryDirectory(prefix="k8s-e2e-") as folder:
        cluster = Cluster.bake(Path(folder))
        with e2e.conftest.started(cluster, request.session):
            yield cluster


@pytest.fixture(scope="session")
def drills_table() -> dict[str, str]:
    """The lines of the table that is printed at the end, by the drills' names."""
    return _drills


@pytest.fixture(scope="session")
def ground(stack: Cluster) -> Ground:
    """The project, with none but the replicas that a test asks for."""
    stack.kubectl("delete", "horizontalpodautoscalers", "--all")
    stack.wait_until_well(*stack.services)
    ground = Ground(stack, RATE)
    ground.channels.prepare()
    return ground
