"""An unreachable or frozen broker: the service notices it, logs it, and recovers by itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress

import pytest
import pytest_asyncio
from faststream_otel.messages.broker import Unavailable

from ..integration.relay import Relay, relay
from ..ports import free_port, refusing_port
from .conftest import Find
from .features import Features, Row
from .rig import Rig, until

pytestmark = pytest.mark.asyncio(loop_scope="session")


class Line:
    """A service's connection to its broker."""

    def __init__(self, rig: Rig, broker: str, port: int) -> None:
        self.rig, self._broker, self._port = rig, broker, port
        self._stack = ExitStack()
        self.relay: Relay

    def connect(self) -> None:
        self.relay = self._stack.enter_context(relay(self._port, self._broker))

    def cut(self) -> None:
        self._stack.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def line(row: Row, find: Find) -> AsyncIterator[Line]:
    url, features = find(Features(0))
    port = free_port()
    rig = Rig(row, f"127.0.0.1:{port}")
    rig.subscribe(rig.named("line"))
    line = Line(rig, url, port)
    line.connect()
    try:
        async with rig.running(features):
            yield line
    finally:
        line.cut()


async def test_an_unreachable_broker_has_a_reason(row: Row) -> None:
    with refusing_port() as port:
        rig = Rig(row, f"127.0.0.1:{port}")
        rig.subscribe("any")
        with pytest.raises(rig.broker.unreachable) as raised:
            await rig.broker.faststream.start()
        await rig.broker.faststream.stop()
        assert await rig.broker.why_unreachable(raised.value)
        assert not await rig.broker.answers_new_client()


async def test_an_unconfirmed_message_raises_unavailable(line: Line) -> None:
    rig, channel = line.rig, line.rig.named("line")
    await rig.publish(channel, "before")
    line.relay.moves.clear()
    try:
        with pytest.raises(Unavailable):
            await rig.publish(channel, "frozen")
        assert not await rig.broker.answers_new_client()
    finally:
        line.relay.moves.set()
    await until(rig.broker.answers, "an answer")
    await rig.publish(channel, "after")
    await until(lambda: b"after" in {rig.broker.raw(m).body for m in rig.seen[channel]}, "after")


async def test_a_service_recovers_with_its_broker(line: Line) -> None:
    rig, channel = line.rig, line.rig.named("line")
    line.cut()
    cut = asyncio.create_task(rig.publish(channel, "cut"))
    await asyncio.sleep(0.2)
    line.connect()

    async def sent() -> bool:
        try:
            await rig.publish(channel, "back")
        except Unavailable:
            return False
        return True

    await until(sent, "a confirmation")
    with suppress(Unavailable):  # or it is confirmed after all
        await cut
    await until(lambda: b"back" in {rig.broker.raw(m).body for m in rig.seen[channel]}, "back")
    await until(rig.broker.joined, "all consumers to be attached")
    assert await rig.broker.answers()
