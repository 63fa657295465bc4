"""A whole service over NATS: retries, dead letters by the command line, the watchdog, a restart."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import nats
import pytest
from faststream_otel.nats.embedded import embedded_nats
from nats.js import JetStreamContext

from ..ports import free_port
from .conftest import Process
from .test_faults import EX_SOFTWARE

SERVICE = """
import asyncio, os
from faststream_otel import Service
from shop.settings import Settings

service = Service("pinger", Settings())

@service.subscriber("pings")
async def handle(ping: str) -> None:
    print(f"handles {ping}", flush=True)
    if os.environ.get("BROKEN"):
        raise LookupError(f"no use for {ping}")
    await asyncio.sleep(float(os.environ.get("SECONDS", 0)))
    print(f"handled {ping}", flush=True)

if __name__ == "__main__":
    service.run()
"""
FILES = {
    "__init__.py": "",
    "settings.py": "from faststream_otel.nats import NatsSettings as Settings\n",
    "channels.py": 'CHANNELS = ("pings", "pongs")\n',
    "services/__init__.py": "",
    "services/pinger.py": SERVICE,
}


class Shop:
    """A project, its broker, and the processes that it starts."""

    def __init__(self, folder: Path, broker: str, started: ExitStack) -> None:
        self._folder, self._broker, self._started = folder, broker, started

    def _environment(self, **variables: str) -> dict[str, str]:
        path = os.pathsep.join(filter(None, [str(self._folder), os.environ.get("PYTHONPATH")]))
        return os.environ | {
            "PYTHONPATH": path,
            "BROKER_URL": self._broker,
            "OTEL_SDK_DISABLED": "true",
            **variables,
        }

    def start(self, **variables: str) -> Process:
        port = free_port()
        process = Process(
            [sys.executable, "-m", "shop.services.pinger"],
            port,
            self._folder / f"{port}.log",
            self._environment(PORT=str(port), **variables),
        )
        self._started.callback(process.popen.wait)
        self._started.callback(process.popen.kill)
        return process

    def command(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "faststream_otel.cli", "--app", "shop", *arguments],
            env=self._environment(), capture_output=True, encoding="utf-8",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def listed(self, command: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.command(command, "--json").splitlines()]

    def client(self, use: Callable[[JetStreamContext], Awaitable[Any]]) -> Any:
        """Use the broker without the library."""

        async def run() -> Any:
            client = await nats.connect(f"nats://{self._broker}")
            try:
                return await use(client.jetstream())
            finally:
                await client.close()

        return asyncio.run(run())

    def ping(self, *texts: str) -> None:
        async def publish(stream: JetStreamContext) -> None:
            for text in texts:
                await stream.publish("pings", text.encode())

        self.client(publish)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    for name, text in FILES.items():
        path = tmp_path / "shop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    with embedded_nats() as broker, ExitStack() as started:
        shop = Shop(tmp_path, broker, started)
        shop.command("channels")
        yield shop


def until(check: Callable[[], Any], process: Process, seconds: float = 30) -> None:
    ends = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < ends, process.output.read_text()
        time.sleep(0.1)


def test_dead_letters_are_listed_replayed_and_discarded(shop: Shop) -> None:
    broken = shop.start(BROKEN="1")
    broken.wait_ready()
    shop.ping("a", "b")
    until(lambda: len(shop.listed("dead-letters")) == 2, broken)
    assert broken.output.read_text().count("handles a") == 3  # the attempts
    assert broken.stop() == 0

    first, _ = shop.listed("dead-letters")
    assert (first["channel"], first["error_type"]) == ("pings", "LookupError")
    assert [lag["ready"] + lag["in_flight"] for lag in shop.listed("lag")] == [0]

    shop.command("discard", first["id"])
    shop.command("replay", "--all")
    assert [lag["ready"] for lag in shop.listed("lag")] == [1]
    fixed = shop.start()
    until(lambda: "handled b" in fixed.output.read_text(), fixed)
    assert "handles a" not in fixed.output.read_text()
    assert fixed.stop() == 0


def test_a_message_in_flight_is_handled_by_the_next_instance(shop: Shop) -> None:
    """At once after SIGTERM. After SIGKILL, the server waits for a sign of life."""
    first = shop.start(SECONDS="60", DRAIN_TIMEOUT_SECONDS="0.5")
    first.wait_ready()
    shop.ping("one")
    until(lambda: "handles one" in first.output.read_text(), first)
    first.stop(signal.SIGTERM)
    second = shop.start()
    until(lambda: "handled one" in second.output.read_text(), second, seconds=10)
    assert second.stop() == 0


@pytest.mark.parametrize("what", ["consumer", "stream"])
def test_the_watchdog_ends_a_service_without_its_consumer(shop: Shop, what: str) -> None:
    process = shop.start(WATCHDOG_TIMEOUT_SECONDS="3")
    process.wait_ready()
    if what == "consumer":
        shop.client(lambda stream: stream.delete_consumer("pings", "pinger-pings"))
    else:
        shop.client(lambda stream: stream.delete_stream("pings"))
    assert process.popen.wait(40) == EX_SOFTWARE
    if what == "stream":
        waiting = shop.start()
        until(lambda: "faststream-otel channels" in waiting.output.read_text(), waiting)
        shop.command("channels")
        waiting.wait_ready()
        assert waiting.stop() == 0
