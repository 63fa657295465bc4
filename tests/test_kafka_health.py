"""Kafka's health check, a request in bash, finds healthy what serves and nothing else."""

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from faststream_otel.kafka.embedded import embedded_kafka
from library.brokers import servers

Command = list[str]
ANSWER = b"\0\0\0\x10" + bytes(8)  # size, correlation id, throttle time; then how many brokers
NO_BROKER, ONE_BROKER = ANSWER + bytes(4), ANSWER + b"\0\0\0\1"


@pytest.fixture
def check(default_project: Path) -> Command:
    compose = yaml.safe_load((default_project / "compose.broker.yaml").read_text("utf-8"))
    kind, *command = compose["services"]["kafka"]["healthcheck"]["test"]
    assert kind == "CMD"
    return [part.replace("$$", "$") for part in command]  # as Compose does


def is_healthy(check: Command, url: str) -> bool:
    host, port = url.split(":")
    command = [part.replace("/localhost/9092", f"/{host}/{port}") for part in check]
    assert command != check
    try:
        return subprocess.run(command, capture_output=True, timeout=3).returncode == 0
    except subprocess.TimeoutExpired:  # Docker's `timeout` makes it unhealthy too
        return False


@pytest.fixture
def served(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server that gives the parameter for an answer, to one client."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            client, _ = listening.accept()
            with client:
                client.recv(100)
                client.sendall(request.param)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize("served", [b"", NO_BROKER], indirect=True, ids=repr)
def test_an_open_port_is_not_enough(check: Command, served: str) -> None:
    assert not is_healthy(check, served)


@pytest.mark.parametrize("served", [ONE_BROKER], indirect=True, ids=repr)
def test_a_broker_that_lists_itself_is_healthy(check: Command, served: str) -> None:
    assert is_healthy(check, served)


def test_a_closed_port_is_not_healthy(check: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"127.0.0.1:{closed.getsockname()[1]}"
    assert not is_healthy(check, url)


def test_the_embedded_broker_is_healthy(check: Command) -> None:
    with embedded_kafka() as url:
        assert is_healthy(check, url)


async def test_a_real_broker_serves_once_it_is_healthy_and_is_not_when_it_hangs(
    check: Command,
) -> None:
    try:
        with servers.kafka() as kafka:
            until = time.monotonic() + 60
            while not is_healthy(check, kafka.url):
                assert time.monotonic() < until
            await serves(kafka.url)
            kafka.pause()
            assert not is_healthy(check, kafka.url)
            kafka.resume()
    except servers.Missing as missing:
        pytest.skip(str(missing))


async def serves(url: str) -> None:
    """Create a topic and publish to it, each at the first attempt."""
    admin = AIOKafkaAdminClient(bootstrap_servers=url)
    await admin.start()
    created = await admin.create_topics([NewTopic("t", 1, 1)])
    await admin.close()
    assert created.topic_errors[0][1] == 0
    async with AIOKafkaProducer(bootstrap_servers=url, request_timeout_ms=5000) as producer:
        await producer.send_and_wait("t", b"x")
