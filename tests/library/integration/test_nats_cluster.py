"""The copies of a stream in a cluster of three servers, one of which is lost."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from faststream_otel.messages.broker import Replicas, Unreachable
from faststream_otel.nats import NatsSettings
from nats.errors import Error

from ..brokers.rig import until
from ..brokers.servers import Process, nats_program
from ..ports import free_port

SERVERS = 3
ELECTION_SECONDS = 60


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[Process]]:
    first = free_port(2 * SERVERS)
    routes = ", ".join(
        f'"nats://127.0.0.1:{first + SERVERS + number}"' for number in range(SERVERS)
    )
    with ExitStack() as running:
        servers = []
        for number in range(SERVERS):
            configuration = tmp_path / f"{number}.conf"
            configuration.write_text(f"""
server_name: server-{number}
listen: 127.0.0.1:{first + number}
jetstream {{ store_dir: "{tmp_path / str(number)}" }}
cluster {{ name: tested, listen: 127.0.0.1:{first + SERVERS + number}, routes: [{routes}] }}
""")
            command = [nats_program(), "--config", str(configuration)]
            process = Process(first + number, command, tmp_path / f"{number}.log", {})
            servers.append(running.enter_context(process.running()))
        yield servers


async def test_a_lost_server_is_a_missing_copy(cluster: list[Process]) -> None:
    urls = [server.url for server in cluster]
    broker = NatsSettings(broker_url=",".join(urls), broker_replicas=SERVERS).broker()
    async with asyncio.timeout(ELECTION_SECONDS):
        while True:
            try:
                await broker.create_channels(["orders.placed"])
                break
            except (Error, Unreachable):  # no leader yet
                await asyncio.sleep(0.2)

    async def in_sync(number: int) -> bool:
        try:
            found = await broker.replicas(["orders.placed"])
        except Unreachable:  # while the others elect a leader
            return False
        return found == [Replicas("orders.placed", SERVERS, number)]

    await until(lambda: in_sync(SERVERS), "all copies", ELECTION_SECONDS)
    cluster[0].kill()
    await until(lambda: in_sync(SERVERS - 1), "a missing copy", ELECTION_SECONDS)
