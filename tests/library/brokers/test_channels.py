"""Channels are created on request."""

import pytest
from faststream_otel.messages.broker import Unreachable
from faststream_otel.messages.dead_letters import DEAD_LETTERS

from ..ports import refusing_port
from .conftest import Find
from .features import Features, Row
from .rig import Rig

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_channels_are_created_once_including_the_dead_letters(row: Row, find: Find) -> None:
    url, _ = find(Features.CHANNELS)
    rig = Rig(row, url)
    channels = [rig.named("one"), rig.named("two")]
    for _ in range(2):
        await rig.broker.create_channels([*channels, channels[0]])
    for channel in (*channels, DEAD_LETTERS):
        await row.publish(url, channel, b"body", b"key", [])
    async with rig.broker.dead_letters() as store:
        assert [await store.exists(one) for one in (*channels, DEAD_LETTERS)] == [True] * 3
        assert not await store.exists(rig.named("three"))


async def test_an_unreachable_broker_raises_with_the_reason(row: Row) -> None:
    with refusing_port() as port:
        rig = Rig(row, f"127.0.0.1:{port}")
        with pytest.raises(Unreachable) as raised:
            await rig.broker.create_channels(["any"])
    assert str(raised.value)
