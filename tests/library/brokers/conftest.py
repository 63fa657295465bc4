"""Servers, each started once and only if a test needs it, and services that use them."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack

import pytest
import pytest_asyncio
import tools

from . import servers
from .features import BROKERS, Features, Row, Server
from .rig import Rig

CHANNELS = (
    "again", "back", "batch", "bodies", "keys", "lag", "progress", "raw", "sent", "settled"
)  # fmt: skip

Find = Callable[[Features], tuple[str, Features]]
"""The URL of a server that has these features, and all that it has."""


@pytest.fixture(scope="session", params=BROKERS)
def row(request: pytest.FixtureRequest) -> Row:
    return BROKERS[request.param]


@pytest.fixture(scope="session")
def start() -> Iterator[Callable[[Server], str]]:
    """Start a server, or return where it runs already."""
    running: dict[int, str] = {}
    with ExitStack() as started:

        def run(server: Server) -> str:
            if id(server) not in running:
                running[id(server)] = started.enter_context(server.start())
            return running[id(server)]

        yield run


@pytest.fixture(scope="session")
def find(row: Row, start: Callable[[Server], str]) -> Find:
    """Skips the test, and names it at the end, where such a server cannot be had."""

    def found(needed: Features) -> tuple[str, Features]:
        reason = f"no server of this broker has {needed}"
        for server in row.servers:
            if needed in server.features:
                try:
                    return start(server), server.features
                except servers.Missing as error:
                    reason = str(error)
                    tools.missing.setdefault(reason, []).append(f"a broker's {needed.name}")
        pytest.skip(reason)

    return found


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def rig(row: Row, find: Find) -> AsyncIterator[Rig]:
    """One service for all tests that need none of their own: a channel for each of CHANNELS."""
    url, features = find(Features(0))
    rig = Rig(row, url)
    for channel in CHANNELS:
        rig.subscribe(rig.named(channel), batch=channel.startswith("batch"))
    async with rig.running(features):
        yield rig
