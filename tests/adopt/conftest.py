"""Each recipe in an environment of its own requirements, with an embedded Kafka and a receiver."""

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from uuid import uuid4

import pytest
import trustme
from confluent_kafka import OFFSET_END, Consumer, Message, Producer, TopicPartition
from faststream_otel.kafka.embedded import embedded_kafka
from ports import free_ports

from . import page
from .receiver import Receiver

# A service has FastStream already, with its command line.
ALREADY_THERE = ("faststream[kafka,cli]>=0.7.8,<0.8",)
PARTITIONS = 4  # that the embedded Kafka gives a topic
TOPICS = ("in-topic", "out-topic", "orders", "dead-letters")


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[[tuple[str, ...]], Path]:
    """Make an environment that has these requirements and nothing else; return its programs."""
    home = tmp_path_factory.mktemp("environments")
    uv = shutil.which("uv")
    assert uv

    @cache
    def make(requirements: tuple[str, ...]) -> Path:
        folder = home / str(len(list(home.iterdir())))
        local = [
            one.replace(page.FOLDER, str(page.LIBRARY), 1) if one.startswith(page.FOLDER) else one
            for one in requirements
        ]
        programs = folder / "bin"
        for command in (
            ["venv", "--quiet", str(folder)],
            ["pip", "install", "--quiet", "--python", str(programs / "python"), *ALREADY_THERE,
             *local],
        ):  # fmt: skip
            done = subprocess.run([uv, *command], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        return programs

    return make


class Topics:
    """Two Kafka clusters of their own, spoken to without any telemetry."""

    def __init__(self, first: str, second: str) -> None:
        self.first, self.second = first, second

    def answer(
        self, send: Callable[[], object], topic: str = "out-topic", *, second: bool = False
    ) -> Message:
        """Send until something comes out at this topic: a consumer without a group sees nothing
        that was there before it.
        """
        consumer = Consumer(
            {"bootstrap.servers": self.second if second else self.first, "group.id": str(uuid4())}
        )
        consumer.assign([TopicPartition(topic, one, OFFSET_END) for one in range(PARTITIONS)])
        try:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                with suppress(urllib.error.URLError, ConnectionError):  # it does not serve yet
                    send()
                found = consumer.poll(0.3)
                if found is not None and not found.error():
                    return found
        finally:
            consumer.close()
        raise TimeoutError(f"nothing came to {topic}")

    def publish(self, body: object, topic: str = "in-topic") -> None:
        producer = Producer({"bootstrap.servers": self.first})
        producer.produce(topic, json.dumps(body).encode())
        producer.flush(10)


@pytest.fixture(scope="session")
def topics() -> Iterator[Topics]:
    with embedded_kafka(TOPICS) as first, embedded_kafka(TOPICS) as second:
        yield Topics(first, second)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver
        assert receiver.problems == []


class Running:
    """A recipe's service."""

    def __init__(self, command: list[str], folder: Path, env: dict[str, str], port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._output = folder / "output"
        with self._output.open("w") as file:
            self.process = subprocess.Popen(
                command, cwd=folder, env=env, stdout=file, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    @property
    def output(self) -> str:
        return self._output.read_text("utf-8")

    def post(self, body: object) -> None:
        assert self.process.poll() is None, self.output
        data = json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}/users", data, {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=5).close()

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=5) as answer:
            assert answer.url == f"{self.url}{path}", "it was redirected"
            text: str = answer.read().decode()
            return text

    def stop(self) -> str:
        """End it as a container is ended, and return its output."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        return self.output


Run = Callable[..., Running]


@pytest.fixture
def run(
    environment: Callable[[tuple[str, ...]], Path],
    topics: Topics,
    receiver: Receiver,
    tmp_path: Path,
) -> Iterator[Run]:
    """Run a recipe of a section of the page: `run(recipe, section, *command, **variables)`.

    Telemetry goes to the receiver, traces and logs only at the end: what arrives was flushed.
    `{port}` in the command is a free port; `kafka` is another address of the first cluster.
    """
    with ExitStack() as stack:

        def start(
            recipe: str, section: str, *command: str, kafka: str = topics.first, **variables: str
        ) -> Running:
            folder = tmp_path / f"{recipe}-{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            (port,) = free_ports(1)
            for source in (page.RECIPES / recipe).iterdir():
                if source.is_file():
                    text = source.read_text("utf-8").replace("localhost:9092", kafka)
                    text = text.replace("start_http_server(8000", f"start_http_server({port}")
                    # A group that no other test has used: nothing is left for it to consume.
                    text = text.replace('group_id="users"', f'group_id="{uuid4()}"')
                    (folder / source.name).write_text(text.replace("localhost:9093", topics.second))
            programs = environment(page.requirements(section))
            env = {
                "PATH": f"{programs}{os.pathsep}{os.defpath}",
                "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.grpc_endpoint,
                "OTEL_BSP_SCHEDULE_DELAY": "600000",
                "OTEL_BLRP_SCHEDULE_DELAY": "600000",
                **variables,
            }
            program, *arguments = [part.format(port=port) for part in command]
            running = Running([str(programs / program), *arguments], folder, env, port)
            stack.callback(running.process.wait)
            stack.callback(kill, running.process.pid)
            return running

        yield start


def kill(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """PEM files: of an authority, of a certificate for 127.0.0.1 that it signed, and its key."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    files = folder / "ca.pem", folder / "server.pem", folder / "server.key"
    authority.cert_pem.write_to_path(files[0])
    issued.cert_chain_pems[0].write_to_path(files[1])
    issued.private_key_pem.write_to_path(files[2])
    return files
