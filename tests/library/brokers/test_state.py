"""The state of a broker and its consumers, for readiness, the watchdog and lag."""

import asyncio
from typing import Any

import pytest
from faststream_otel.messages.broker import Progress, Unreachable

from ..ports import refusing_port
from .conftest import Find
from .features import Features, Row
from .rig import Rig, until

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_consumers_of_a_running_service_are_attached(rig: Rig) -> None:
    assert rig.broker.joined()
    other = Rig(rig.row, rig.url)
    other.subscribe(other.named("never"))
    assert not other.broker.joined()


async def test_a_reachable_broker_answers(rig: Rig) -> None:
    assert await rig.broker.answers()
    assert await rig.broker.answers_new_client()
    assert rig.url in rig.broker.url


async def test_a_consumer_with_a_running_handler_has_waiting_messages(rig: Rig) -> None:
    channel, go_on = rig.named("progress"), asyncio.Event()

    async def progress() -> Progress:
        return (await rig.broker.progress())[channel]

    idle = await progress()
    assert (idle.attached, idle.waiting) == (True, False)
    rig.handle(channel, lambda _: go_on.wait())  # type: ignore[arg-type, return-value]
    await rig.publish(channel, "one", "two", key="same")
    await rig.delivered(channel, 1)
    busy = await progress()
    assert (busy.attached, busy.waiting) == (True, True)
    assert await progress() == busy  # nothing has changed

    go_on.set()
    await rig.delivered(channel, 2)
    await rig.idle(channel)
    assert (await progress()).reached not in (idle.reached, busy.reached)


async def test_lag_counts_unacknowledged_messages(rig: Rig, find: Find) -> None:
    channel, go_on = rig.named("lag"), asyncio.Event()
    counted = 3 if Features.IN_FLIGHT in find(Features(0))[1] else 2

    async def lag() -> tuple[int, int]:
        found = [one for one in await rig.broker.lag(rig.broker.groups()) if one.channel == channel]
        return sum(one.ready for one in found), sum(one.in_flight or 0 for one in found)

    assert await lag() == (0, 0)
    rig.handle(channel, lambda _: go_on.wait())  # type: ignore[arg-type, return-value]
    await rig.publish(channel, "one", "two", "three", key="same")
    await rig.delivered(channel, 1)

    async def all_counted() -> bool:
        return sum(await lag()) == counted

    await until(all_counted, f"{counted} messages of lag")
    go_on.set()

    async def none_left() -> bool:
        return await lag() == (0, 0)

    await until(none_left, "no lag")
    groups: dict[str, Any] = {
        one.channel: one.group for one in await rig.broker.lag(rig.broker.groups())
    }
    assert rig.service in groups[channel]


@pytest.mark.parametrize("batch", [False, True])
async def test_what_fails_or_is_in_flight_stays_unacknowledged(
    row: Row, find: Find, batch: bool
) -> None:
    url, features = find(Features.IN_FLIGHT)
    rig, failed, go_on = Rig(row, url), asyncio.Event(), asyncio.Event()
    channel = rig.named("kept")

    async def handle(body: Any) -> None:
        if "slow" in body:
            await go_on.wait()
        elif "bad" in body:
            failed.set()
            raise ValueError

    async def lag() -> int:
        found = await rig.broker.lag(rig.broker.groups())
        return sum(one.ready + one.in_flight for one in found)

    async def one_left() -> bool:
        return await lag() == 1

    rig.subscribe(channel, handle, batch=batch)
    async with rig.running(features):
        await rig.publish(channel, "first", key="same")
        await rig.delivered(channel, 1)
        await rig.publish(channel, "slow", key="same")
        await until(one_left, "the first to be acknowledged")
        await asyncio.sleep(1.5)  # longer than the interval of commits
        assert await lag() == 1
        await rig.publish(channel, "bad", key="same")
        go_on.set()
        await until(failed.is_set, "the failure")
        await until(one_left, "the slow one to be acknowledged")
        await rig.publish(channel, *"0123456789", key="same")
    assert await lag() > 0

    again = Rig(row, url, rig.service)
    again.subscribe(channel, batch=batch)
    async with again.running(features):
        await until(lambda: "bad" in _bodies(again, channel), "what had failed")
        await again.idle(channel)


def _bodies(rig: Rig, channel: str) -> str:
    return str([one.body for one in rig.seen[channel]])


async def test_lag_is_known_while_no_consumer_runs(row: Row, find: Find) -> None:
    url, features = find(Features(0))
    running = Rig(row, url)
    channel = running.named("left")
    running.subscribe(channel)
    async with running.running(features):
        await running.publish(channel, "handled", key="same")
        await running.delivered(channel, 1)
        await running.idle(channel)
        groups = {one.group for one in await running.broker.lag(running.broker.groups())}
    for number in range(3):
        await row.publish(url, channel, b"%d" % number, b"key", [])

    fresh = Rig(row, url, running.service)
    fresh.subscribe(channel)
    for _ in range(2):  # reading it changes nothing
        found = await fresh.broker.lag(fresh.broker.groups())
        assert sum(one.ready for one in found) == 3
        assert sum(one.in_flight or 0 for one in found) == 0
        assert {one.channel for one in found} == {channel}
        assert {one.group for one in found} == groups


async def test_a_single_server_has_the_only_copy_of_a_channel(rig: Rig, find: Find) -> None:
    channel = rig.named("lag")
    found = await rig.broker.replicas([channel, rig.named("nowhere")])
    assert {one.channel for one in found} <= {channel}
    assert {(one.configured, one.in_sync) for one in found} <= {(1, 1)}
    assert bool(found) is (Features.REPLICAS in find(Features(0))[1])


async def test_an_unreachable_broker_has_no_lag_but_a_reason(row: Row) -> None:
    with refusing_port() as port:
        rig = Rig(row, f"127.0.0.1:{port}")
        rig.subscribe("any")
        with pytest.raises(Unreachable) as raised:
            await rig.broker.lag(rig.broker.groups())
    assert str(raised.value)
