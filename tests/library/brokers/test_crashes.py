"""A consumer's process is killed or stopped: another instance does what is left, and only that."""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio

from ..integration.conftest import Process, ended
from ..ports import free_port
from .conftest import Find
from .features import BROKERS, Features, Row
from .rig import Rig, until
from .served import Served

pytestmark = pytest.mark.asyncio(loop_scope="session")


class Work:
    """A channel, and a service in processes of its own that works off its jobs."""

    def __init__(self, rig: Rig, broker: str, folder: Path, started: ExitStack) -> None:
        self.rig, self._broker, self._folder, self._started = rig, broker, folder, started
        self._service = f"consumer-{uuid4().hex[:8]}"
        self.channel = f"jobs.{self._service}"
        self._log = folder / "jobs.log"
        self._log.touch()

    async def start(self) -> Process:
        """Start one more instance."""
        port = free_port()
        command = [
            sys.executable, "-m", f"{__package__}.consumer",
            self._broker, self.rig.url, self._service, self.channel, str(self._log),
        ]  # fmt: skip
        environment = os.environ | {"PORT": str(port), "OTEL_SDK_DISABLED": "true"}
        process = Process(command, port, self._folder / f"{port}.log", environment)
        self._started.enter_context(ended(process))
        await asyncio.to_thread(process.wait_ready)
        return process

    async def give(self, *names: str, seconds: float = 0, keys: int = 1) -> None:
        for name in names:
            job = {"name": name, "seconds": seconds}
            await self.rig.publish(self.channel, job, key=f"{sum(name.encode()) % keys}")

    def done(self) -> Counter[str]:
        """What the instances did so far: `start <job>`, `end <job>`."""
        return Counter(self._log.read_text().splitlines())

    async def wait(self, line: str) -> None:
        await until(lambda: line in self.done(), line, seconds=60)

    async def acknowledged(self) -> None:
        """Wait until no job is left."""
        consumer = Rig(self.rig.row, self.rig.url, self._service)
        consumer.subscribe(self.channel)

        async def none_left() -> bool:
            lag = await consumer.broker.lag(consumer.broker.groups())
            return not any(one.ready or one.in_flight for one in lag)

        await until(none_left, "all jobs to be acknowledged")


@pytest_asyncio.fixture(loop_scope="session")
async def work(row: Row, rig: Rig, find: Find, tmp_path: Path) -> AsyncIterator[Work]:
    (broker,) = (name for name, one in BROKERS.items() if one is row)
    with ExitStack() as started:
        work = Work(rig, broker, tmp_path, started)
        if Features.CHANNELS in find(Features(0))[1]:
            await rig.broker.create_channels([work.channel])
        yield work


async def test_what_a_killed_consumer_left_is_handled_by_the_next(work: Work) -> None:
    killed = await work.start()
    await work.give("finished")
    await work.wait("end finished")
    await work.acknowledged()
    await work.give("begun", seconds=2)
    await work.wait("start begun")
    killed.stop(signal.SIGKILL)
    await work.start()
    await work.give("new")
    await work.wait("end new")
    await work.wait("end begun")
    assert work.done() == {
        "start finished": 1, "end finished": 1,  # it was acknowledged
        "start begun": 2, "end begun": 1,
        "start new": 1, "end new": 1,
    }  # fmt: skip


async def test_an_orderly_stop_finishes_what_is_in_flight_and_loses_nothing(work: Work) -> None:
    names = [f"{number}" for number in range(4)]
    stopped = await work.start()
    await work.give(*names, seconds=0.5)
    await work.wait("start 0")
    assert await asyncio.to_thread(stopped.stop) == 0, stopped.output.read_text()
    done = work.done()
    assert done["end 0"] == 1
    assert sum(done.values()) < 2 * len(names), "it went on with messages that it had not begun"
    await work.start()
    await work.wait("end 3")
    assert work.done() == {f"{what} {name}": 1 for what in ("start", "end") for name in names}


async def test_a_kill_repeats_at_most_what_was_handled_in_the_last_second(work: Work) -> None:
    names = [f"{number}" for number in range(100)]
    killed = await work.start()
    await work.give(*names, seconds=0.05)
    await work.wait("end 60")
    killed.stop(signal.SIGKILL)
    await work.start()
    await work.wait("end 99")
    ends = work.done()
    assert not [name for name in names if not ends[f"end {name}"]], "lost"
    repeated = [name for name in names if ends[f"end {name}"] > 1]
    # Twice what a second holds: a commit takes a moment too.
    assert len(repeated) <= 2 * 1 / 0.05, repeated


async def test_nothing_is_repeated_after_an_orderly_stop(work: Work) -> None:
    names = [f"{number}" for number in range(30)]
    stopped = await work.start()
    await work.give(*names, keys=5)
    for name in names:
        await work.wait(f"end {name}")
    assert await asyncio.to_thread(stopped.stop) == 0, stopped.output.read_text()
    await work.start()
    await work.give(*(f"new {key}" for key in range(5)), keys=5)
    for key in range(5):
        await work.wait(f"end new {key}")
    assert {*work.done().values()} == {1}


async def test_instances_that_come_and_go_repeat_nothing(work: Work, find: Find) -> None:
    find(Features.INSTANCES)
    given: list[str] = []
    enough_given = asyncio.Event()  # a client may swallow a cancellation

    async def give() -> None:
        while not enough_given.is_set():
            given.append(f"{len(given)}")
            await work.give(given[-1], seconds=0.01, keys=20)
            await asyncio.sleep(0.02)

    async def some_more() -> None:
        enough = work.done().total() + 100
        await until(lambda: work.done().total() > enough, "some more jobs", seconds=60)

    first = await work.start()
    giving = asyncio.create_task(give())
    try:
        await some_more()
        second = await work.start()
        await some_more()
        assert await asyncio.to_thread(first.stop) == 0, first.output.read_text()
        await some_more()
    finally:
        enough_given.set()
        await asyncio.wait_for(giving, 30)
    for name in given:
        await work.wait(f"end {name}")
    assert await asyncio.to_thread(second.stop) == 0, second.output.read_text()
    assert {*work.done().values()} == {1}


async def test_a_handler_that_takes_longer_than_the_redelivery_runs_once(
    row: Row, find: Find
) -> None:
    url, features = find(Features.INSTANCES)
    if row.quick_redelivery is None:
        pytest.skip("this broker redelivers only what a consumer left")
    begun: list[str] = []
    with row.quick_redelivery() as seconds:
        instances = [Served(row, url, handler_timeout_seconds=60)]
        instances.append(Served(row, url, instances[0].service.name, handler_timeout_seconds=60))
        channel = instances[0].named("slow")
        ended = asyncio.Event()

        async def handle(body: str) -> None:
            begun.append(body)
            await asyncio.sleep(1.5 * seconds)
            ended.set()

        for one in instances:
            one.service.subscriber(channel)(handle)
        async with (
            instances[0].running(features, [channel]),
            instances[1].running(features, [channel]),
        ):
            publisher = instances[0].service.publisher(channel)
            await instances[0].service.send(publisher, "long")
            await until(ended.is_set, "the handler to end", seconds=2 * seconds + 10)
            await instances[0].idle(channel)
            await instances[1].idle(channel)
        assert begun == ["long"]
