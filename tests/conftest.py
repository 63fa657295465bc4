"""Fixtures for baked projects."""

import re
from pathlib import Path
from typing import Any

import pytest
import tools
from bakery import Bakery
from matrix import Answers, matrix, pairs
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]


@pytest.fixture(scope="session")
def bakery(tmp_path_factory: pytest.TempPathFactory) -> Bakery:
    return Bakery(tmp_path_factory.mktemp("bakery"))


def name_of(answers: Answers) -> str:
    return "-".join(answers.values())


@pytest.fixture(scope="session", params=matrix(), ids=name_of)
def answers(request: pytest.FixtureRequest) -> Answers:
    chosen: Answers = request.param
    return chosen


@pytest.fixture(scope="session")
def project(bakery: Bakery, answers: Answers) -> Path:
    """A baked project for each row of the matrix."""
    return bakery.baked_once(answers, bakery.home / name_of(answers))


@pytest.fixture(scope="session", params=pairs(), ids=name_of)
def pair(bakery: Bakery, request: pytest.FixtureRequest) -> Path:
    """A baked project for each broker with each trace backend."""
    return bakery.baked_once(request.param, bakery.home / f"pair-{name_of(request.param)}")


@pytest.fixture(scope="session")
def default_project(bakery: Bakery) -> Path:
    return bakery.baked_once({}, bakery.home / "default")


# The files that take longest come first: pytest-xdist assigns files in their order.
LONGEST = (
    *("test_without_a_collector.py", "test_versions.py", "test_updating.py", "test_bakes.py"),
    *("test_new_service.py", "test_faults.py", "test_watchdog.py", "test_shutdown.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONGEST)))


class Scheduling(LoadFileScheduling):  # type: ignore[misc]
    """Gives a worker a whole file, or all of a broker's suite, which shares its servers."""

    def _split_scope(self, nodeid: str) -> str:
        of_broker = re.match(r"tests/library/brokers/.*\[(\w+)", nodeid)
        return of_broker[1] if of_broker else str(super()._split_scope(nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    return Scheduling(config, log)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Pass on from a worker of pytest-xdist which tools were missing."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["missing"] = tools.missing


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    for name, checks in getattr(node, "workeroutput", {}).get("missing", {}).items():
        tools.missing.setdefault(name, []).extend(checks)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if tools.missing:
        terminalreporter.section("not checked, for want of a tool or a feature")
        for name, checks in tools.missing.items():
            terminalreporter.line(f"{name}: {', '.join(dict.fromkeys(checks))}")
