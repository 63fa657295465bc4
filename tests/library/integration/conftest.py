"""Fixtures: services as processes, an embedded Kafka, and an OTLP receiver."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from faststream_otel.dev.receiver import OtlpReceiver
from faststream_otel.kafka.embedded import embedded_kafka

from ..brokers import servers
from ..ports import free_port

PACKAGE = "order_flow"

Start = Callable[..., "Process"]


class Process:
    """A running service: its port, and its output so far."""

    def __init__(self, command: list[str], port: int, output: Path, env: dict[str, str]) -> None:
        self.port = port
        self.output = output
        with output.open("w") as file:
            self.popen = subprocess.Popen(
                command, env=env, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )

    def wait_ready(self, timeout: float = 30.0) -> None:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            assert self.popen.poll() is None, self.output.read_text()
            with suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                url = f"http://127.0.0.1:{self.port}/health/ready"
                if urllib.request.urlopen(url, timeout=3).status == 204:
                    return
            time.sleep(0.1)
        raise TimeoutError(f"not ready after {timeout} s:\n{self.output.read_text()}")

    def stop(self, number: int = signal.SIGTERM, timeout: float = 30.0) -> int:
        """Signal the process and return its exit code."""
        self.popen.send_signal(number)
        return self.popen.wait(timeout)


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    with embedded_kafka() as address:
        yield address


@pytest.fixture(scope="module")
def real_kafka() -> Iterator[str]:
    """The embedded one has no controller, and writes no marks of transactions."""
    try:
        with servers.kafka() as server:
            yield server.url
    except servers.Missing as error:
        pytest.skip(str(error))


@pytest.fixture
def sink() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as sink:
        yield sink


@pytest.fixture
def start(kafka: str, tmp_path: Path) -> Iterator[Start]:
    """Start `python <arguments>`; {port} in an argument is the service's port."""
    with ExitStack() as started:

        def run(*arguments: str, **variables: str) -> Process:
            port = free_port()
            command = [sys.executable, *(part.format(port=port) for part in arguments)]
            env = {
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("OTEL_", "BROKER_"))
            }
            env |= {"BROKER_URL": kafka, "PORT": str(port), **variables}
            output = tmp_path / f"{port}.log"
            return started.enter_context(ended(Process(command, port, output, env)))

        yield run


@contextmanager
def ended(process: Process) -> Iterator[Process]:
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.popen.pid, signal.SIGKILL)
        process.popen.wait()
