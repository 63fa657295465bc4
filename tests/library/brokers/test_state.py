"""The state of a broker and its consumers, for readiness, the watchdog and lag."""

import asyncio
from typing import Any

import pytest
from faststream_otel.messages.broker import Progress

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

    async def done() -> bool:
        return not (await progress()).waiting

    await until(done, "both to be acknowledged")
    assert (await progress()).reached not in (idle.reached, busy.reached)


async def test_lag_counts_unacknowledged_messages(rig: Rig) -> None:
    channel, go_on = rig.named("lag"), asyncio.Event()

    async def lag() -> tuple[int, int]:
        found = [one for one in await rig.broker.lag(rig.broker.groups()) if one.channel == channel]
        return sum(one.ready for one in found), sum(one.in_flight for one in found)

    assert await lag() == (0, 0)
    rig.handle(channel, lambda _: go_on.wait())  # type: ignore[arg-type, return-value]
    await rig.publish(channel, "one", "two", "three", key="same")
    await rig.delivered(channel, 1)

    async def all_counted() -> bool:
        return sum(await lag()) == 3

    await until(all_counted, "three messages of lag")
    go_on.set()

    async def none_left() -> bool:
        return await lag() == (0, 0)

    await until(none_left, "no lag")
    groups: dict[str, Any] = {
        one.channel: one.group for one in await rig.broker.lag(rig.broker.groups())
    }
    assert rig.service in groups[channel]
