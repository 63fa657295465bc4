"""Starts servers of brokers, and publishes to them without the library."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import nats
from aiokafka import AIOKafkaProducer
from faststream_otel.kafka.embedded import embedded_kafka
from faststream_otel.messages.broker import Headers
from faststream_otel.nats.embedded import embedded_nats

from ..ports import free_port

__all__ = (
    "Missing",
    "embedded_kafka",
    "embedded_nats",
    "kafka",
    "publish_to_kafka",
    "publish_to_nats",
)


class Missing(Exception):
    """This machine cannot run a server. Says what is missing."""


@contextmanager
def kafka() -> Iterator[str]:
    """A real Kafka with one node, from the folder `kafka` in STACK_HOME."""
    home = Path(os.environ.get("STACK_HOME", Path.home() / ".cache/project-stack"), "kafka")
    if not (shutil.which("java") and home.is_dir()):
        raise Missing(f"java and Kafka in {home.name}/ of STACK_HOME")
    port = free_port(2)
    with tempfile.TemporaryDirectory(prefix="kafka-") as folder:
        properties = Path(folder, "server.properties")
        properties.write_text(
            f"""\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{port + 1}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{port + 1}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder}/data
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
"""
        )
        variables = os.environ | {"KAFKA_HEAP_OPTS": "-Xmx400m", "LOG_DIR": f"{folder}/logs"}
        log = Path(folder, "kafka.log")
        with log.open("w") as output:
            subprocess.run(
                [home / "bin/kafka-storage.sh", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk",
                 "-c", properties],
                env=variables, stdout=output, stderr=output, check=True,
            )  # fmt: skip
            server = subprocess.Popen(
                [home / "bin/kafka-server-start.sh", properties],
                env=variables, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        try:
            _wait_for(port, server, log)
            yield f"127.0.0.1:{port}"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _wait_for(port: int, server: "subprocess.Popen[bytes]", log: Path) -> None:
    ends = time.monotonic() + 60
    while True:
        assert server.poll() is None, log.read_text()
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert time.monotonic() < ends, log.read_text()
        time.sleep(0.1)


async def publish_to_kafka(
    url: str, channel: str, body: bytes | None, key: bytes | None, headers: Headers
) -> None:
    async with AIOKafkaProducer(bootstrap_servers=url) as producer:
        await producer.send_and_wait(channel, body, key, headers=list(headers))


async def publish_to_nats(
    url: str, channel: str, body: bytes | None, key: bytes | None, headers: Headers
) -> None:
    client = await nats.connect(f"nats://{url}")
    text = {name: (value or b"").decode() for name, value in headers}
    if key is not None:
        text["key"] = key.decode()
    await client.jetstream().publish(channel, body or b"", headers=text or None)
    await client.close()
