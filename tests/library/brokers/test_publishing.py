"""Messages arrive unchanged and in order, and the sender knows if one may be lost."""

import asyncio
from collections import defaultdict
from typing import Any

import pytest
from faststream_otel.messages.broker import TooLarge
from faststream_otel.messages.validation import BatchPublisherError
from pydantic import BaseModel

from .conftest import Find
from .features import Features, Row
from .rig import Rig

pytestmark = pytest.mark.asyncio(loop_scope="session")


class Event(BaseModel):
    number: int


async def test_an_event_arrives_with_its_key(rig: Rig, find: Find) -> None:
    channel = rig.named("sent")
    seen = len(rig.seen[channel])
    await rig.publish(channel, Event(number=1), key="ключ")
    *_, raw = await rig.raws(channel, seen + 1)
    assert raw.body == b'{"number":1}'
    if Features.KEYS in find(Features(0))[1]:
        assert raw.key == "ключ".encode()


async def test_bytes_and_headers_arrive_unchanged(rig: Rig) -> None:
    channel = rig.named("sent")
    seen = len(rig.seen[channel])
    await rig.broker.send(
        channel, body=b"\xff\x00", key=b"k", headers={"own": "ä"}, correlation_id="c-1"
    )
    message = (await rig.delivered(channel, seen + 1))[-1]
    raw = rig.broker.raw(message)
    assert raw.body == b"\xff\x00"
    assert (message.headers["own"], message.correlation_id) == ("ä", "c-1")


async def test_messages_with_the_same_key_keep_their_order(rig: Rig, find: Find) -> None:
    if Features.KEYS not in find(Features(0))[1]:
        pytest.skip("this broker has no keys")
    channel = rig.named("keys")
    publisher = rig.broker.publisher(channel, None)
    await asyncio.gather(
        *(
            rig.broker.publish(publisher, {"n": number}, key=f"key-{number % 3}")
            for number in range(30)
        )
    )
    found: dict[bytes | None, list[Any]] = defaultdict(list)
    for message in await rig.delivered(channel, 30):
        found[rig.broker.raw(message).key].append((await message.decode())["n"])  # type: ignore[index]
    assert found == {f"key-{key}".encode(): [*range(key, 30, 3)] for key in range(3)}


async def test_a_message_that_is_too_large_is_not_sent(row: Row, find: Find) -> None:
    url, features = find(Features.SIZE)
    rig = Rig(row, url)
    channel = rig.named("large")
    rig.subscribe(channel)
    async with rig.running(features):
        with pytest.raises(TooLarge):
            await rig.publish(channel, "x" * 5_000_000)
        with pytest.raises(TooLarge):
            await rig.broker.send(
                channel, body=b"x" * 5_000_000, key=None, headers={}, correlation_id=None
            )
        await rig.publish(channel, "small enough")
        assert [raw.body for raw in await rig.raws(channel, 1)] == [b"small enough"]


async def test_a_batch_handler_with_a_publisher_is_refused(row: Row, find: Find) -> None:
    rig = Rig(row, find(Features(0))[0])

    async def handle(bodies: list[Any]) -> None: ...

    publisher = rig.broker.publisher("results", None)
    with pytest.raises(BatchPublisherError, match="handle"):
        rig.broker.subscriber("batches", batch=True)(publisher(handle))
