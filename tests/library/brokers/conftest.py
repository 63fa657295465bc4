"""Servers, each started once if a test needs it, and services that use them."""

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import ExitStack

import pytest
import pytest_asyncio
import tools

from . import servers
from .features import BROKERS, Features, Row, Server
from .rig import Rig

CHANNELS = (
    "again", "back", "batch", "bodies", "keys", "lag", "progress", "raw", "replayed", "sent",
    "settled"
)  # fmt: skip

Find = Callable[[Features], tuple[str, Features]]
"""The URL of a server with these features, and all its features."""


@pytest.fixture(scope="session", params=BROKERS)
def row(request: pytest.FixtureRequest) -> Row:
    return BROKERS[request.param]


@pytest.fixture(scope="session")
def start() -> Iterator[Callable[[Server], servers.Running]]:
    """Start a server once, for all tests."""
    running: dict[int, servers.Running] = {}
    with ExitStack() as started:

        def run(server: Server) -> servers.Running:
            if id(server) not in running:
                running[id(server)] = started.enter_context(server.start())
            return running[id(server)]

        yield run


def available(
    row: Row, needed: Features, start: Callable[[Server], servers.Running]
) -> tuple[servers.Running, Features]:
    """Start the first server with these features. Skips the test, with the reason, without one."""
    reason = f"no server of this broker has {needed.name}"
    for server in row.servers:
        if needed in server.features:
            try:
                return start(server), server.features
            except servers.Missing as error:
                reason = str(error)
                if not needed:
                    tools.missing.setdefault(reason, []).append("a broker's real server")
    pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Name skipped checks in the summary, with the reason."""
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[-1].removeprefix("Skipped: ")
        tools.missing.setdefault(reason, []).append(item.name)
    return report


@pytest.fixture(scope="session")
def find(row: Row, start: Callable[[Server], servers.Running]) -> Find:
    """Finds a server. Skips the test, with the reason, if this machine has none."""

    def found(needed: Features) -> tuple[str, Features]:
        server, features = available(row, needed, start)
        return server.url, features

    return found


@pytest.fixture(scope="module")
def process(row: Row) -> Iterator[tuple[servers.Process, Features]]:
    """A server of the module's own, which its tests restart and freeze."""
    with ExitStack() as started:
        server, features = available(
            row, Features.RESTARTS, lambda server: started.enter_context(server.start())
        )
        assert isinstance(server, servers.Process)
        yield server, features


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def rig(row: Row, find: Find) -> AsyncIterator[Rig]:
    """A service that tests share, with a channel for each of CHANNELS."""
    url, features = find(Features(0))
    rig = Rig(row, url)
    for channel in CHANNELS:
        rig.subscribe(rig.named(channel), batch=channel.startswith("batch"))
    async with rig.running(features):
        yield rig
