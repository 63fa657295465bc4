"""Servers, each started once if a test needs it, and services that use them."""

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
"""The URL of a server with these features, and all its features."""


@pytest.fixture(scope="session", params=BROKERS)
def row(request: pytest.FixtureRequest) -> Row:
    return BROKERS[request.param]


@pytest.fixture(scope="session")
def start() -> Iterator[Callable[[Server], str]]:
    """Start a server once, and return its URL."""
    running: dict[int, str] = {}
    with ExitStack() as started:

        def run(server: Server) -> str:
            if id(server) not in running:
                running[id(server)] = started.enter_context(server.start())
            return running[id(server)]

        yield run


@pytest.fixture(scope="session")
def find(row: Row, start: Callable[[Server], str]) -> Find:
    """Finds a server. Skips the test, with the reason, if this machine has none."""

    def found(needed: Features) -> tuple[str, Features]:
        reason = f"no server of this broker has {needed}"
        for server in row.servers:
            if needed in server.features:
                try:
                    return start(server), server.features
                except servers.Missing as error:
                    reason = str(error)
                    tools.missing.setdefault(reason, []).append(
                        f"a broker's {needed.name or 'promises on its real server'}"
                    )
        pytest.skip(reason)

    return found


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def rig(row: Row, find: Find) -> AsyncIterator[Rig]:
    """A service that tests share, with a channel for each of CHANNELS."""
    url, features = find(Features(0))
    rig = Rig(row, url)
    for channel in CHANNELS:
        rig.subscribe(rig.named(channel), batch=channel.startswith("batch"))
    async with rig.running(features):
        yield rig
