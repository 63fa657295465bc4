"""What retries and dead letters need from a message, whatever it contains."""

import asyncio
from typing import Any

import pytest

from .conftest import Find
from .features import Features
from .rig import Rig, until

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_raw_message_is_unchanged(rig: Rig, find: Find) -> None:
    channel, headers = rig.named("raw"), [("name", b"value")]
    if Features.ANY_HEADERS in find(Features(0))[1]:
        headers += [("name", b"again"), ("bytes", b"\xff\x00")]
    await rig.row.publish(rig.url, channel, b"\x00\xff", b"key", headers)
    await rig.delivered(channel, 1)
    await rig.row.publish(rig.url, channel, b"{}", None, [])
    first, second = await rig.raws(channel, 2)
    assert (first.channel, first.body, first.key) == (channel, b"\x00\xff", b"key")
    assert list(first.headers) == headers
    assert (second.body, second.key, list(second.headers)) == (b"{}", None, [])
    assert first.id != second.id
    assert [rig.broker.count(one) for one in rig.seen[channel]] == [1, 1]
    assert [rig.broker.singles(one) for one in rig.seen[channel]] == [
        [one] for one in rig.seen[channel]
    ]


async def test_a_message_without_a_body_differs_from_an_empty_one(rig: Rig, find: Find) -> None:
    if Features.NO_BODY not in find(Features(0))[1]:
        pytest.skip("this broker has no messages without a body")
    channel = rig.named("bodies")
    for body in (None, b""):
        await rig.row.publish(rig.url, channel, body, b"key", [])
    assert [raw.body for raw in await rig.raws(channel, 2)] == [None, b""]


async def test_a_batch_is_split_into_single_messages(rig: Rig, find: Find) -> None:
    find(Features.BATCHES)
    channel, go_on = rig.named("batch"), asyncio.Event()
    rig.handle(channel, lambda _: go_on.wait())  # type: ignore[arg-type, return-value]
    await rig.publish(channel, "0", key="same")
    await rig.delivered(channel, 1)
    await rig.publish(channel, "1", "2", "3", key="same")
    go_on.set()
    seen = rig.seen[channel]
    await until(lambda: sum(map(rig.broker.count, seen)) == 4, "all messages")

    assert max(map(rig.broker.count, seen)) > 1
    for batch in seen:
        singles = rig.broker.singles(batch)
        assert list(map(rig.broker.count, singles)) == [1] * rig.broker.count(batch)
        assert rig.broker.raw(batch) == rig.broker.raw(singles[0])
        bodies: list[Any] = await batch.decode()  # type: ignore[assignment]
        assert [await single.decode() for single in singles] == [[body] for body in bodies]
    everything = [single for batch in seen for single in rig.broker.singles(batch)]
    assert sorted(raw.body or b"" for raw in map(rig.broker.raw, everything)) == [
        b"0", b"1", b"2", b"3"
    ]  # fmt: skip
    assert len({rig.broker.raw(one).id for one in everything}) == 4
    assert len({one.message_id for one in everything}) == 4


async def test_a_redelivery_delivers_the_message_again(rig: Rig) -> None:
    channel = rig.named("again")

    async def once(body: Any) -> None:
        if len(rig.seen[channel]) == 1:
            error = ConnectionError("another service is down")
            raise rig.broker.redelivery(error) from error

    rig.handle(channel, once)
    await rig.publish(channel, "one")
    first, second = await rig.raws(channel, 2)
    assert first == second
    await rig.publish(channel, "two")
    *_, last = await rig.raws(channel, 3)
    assert last.id != first.id
    assert len(rig.seen[channel]) == 3


async def test_an_acknowledged_message_is_not_redelivered(rig: Rig) -> None:
    channel = rig.named("settled")

    async def settle(body: Any) -> None:
        raise rig.broker.acknowledgement()

    rig.handle(channel, settle)
    await rig.publish(channel, "one", "two", key="same")
    first, second = await rig.raws(channel, 2)
    assert first.id != second.id
    await rig.idle(channel)
    assert len(rig.seen[channel]) == 2


async def test_the_next_instance_gets_unfinished_messages(rig: Rig, find: Find) -> None:
    url, features = find(Features(0))
    first = Rig(rig.row, url)
    channel = first.named("left")

    async def handle(body: str) -> None:
        if body == "acknowledged":
            raise first.broker.acknowledgement()
        if body == "unfinished":
            await asyncio.Event().wait()

    first.subscribe(channel, handle)
    async with first.running(features):
        await first.publish(channel, "done", "acknowledged", "unfinished", key="same")
        await first.delivered(channel, 3)
    second = Rig(rig.row, url, first.service)
    second.subscribe(channel)
    async with second.running(features):
        await second.publish(channel, "new", key="same")
        left = await second.raws(channel, 2)
    assert [raw.body for raw in left] == [b"unfinished", b"new"]
    assert left[0] == first.broker.raw(first.seen[channel][2])


async def test_each_service_gets_every_message(rig: Rig, find: Find) -> None:
    url, features = find(Features(0))
    other = Rig(rig.row, url)
    channel = rig.named("sent")
    other.subscribe(channel)
    async with other.running(features):
        seen = len(rig.seen[channel])
        await rig.publish(channel, "for all")
        await rig.delivered(channel, seen + 1)
        await until(
            lambda: b"for all" in {other.broker.raw(one).body for one in other.seen[channel]},
            "the other service",
        )
