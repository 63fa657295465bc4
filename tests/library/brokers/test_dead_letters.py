"""Dead letters are read without being consumed, and sent back."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from faststream_otel.messages.broker import TooLarge, Unreachable
from faststream_otel.messages.dead_letters import DEAD_LETTERS, states
from faststream_otel.messages.dead_letters.dead_letter import DeadLetter, Record
from faststream_otel.messages.dead_letters.replay import Outcome, Replay, discard
from faststream_otel.messages.dead_letters.search import Filter, NotFound, Search
from faststream_otel.messages.dead_letters.states import TO_DO, State, StateChange
from faststream_otel.messages.dead_letters.store import DeadLetterStore
from opentelemetry.sdk.trace import TracerProvider

from ..ports import refusing_port
from .conftest import Find
from .features import Features, Row
from .rig import Rig

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def store(rig: Rig, find: Find) -> AsyncIterator[DeadLetterStore]:
    if Features.CHANNELS in find(Features(0))[1]:
        await rig.broker.create_channels([])
    await give_up(rig, b"the first of all")  # so that there is at least one
    async with rig.broker.dead_letters() as store:
        yield store


async def give_up(rig: Rig, body: bytes, key: bytes = b"key") -> None:
    await rig.broker.send(
        DEAD_LETTERS, body=body, key=key, headers={"dead-letter.reason": "ü"}, correlation_id="c"
    )


async def read(store: DeadLetterStore, start: dict[str, str] | None = None) -> list[Record]:
    return [record async for record in store.read(start)]


async def test_dead_letters_can_be_read_repeatedly(rig: Rig, store: DeadLetterStore) -> None:
    await give_up(rig, b"\xff\x00", key=rig.service.encode())
    found = [one for one in await read(store) if one.key == rig.service.encode()]
    (record,) = found
    assert record.body == b"\xff\x00"
    assert record.text["dead-letter.reason"] == "ü"
    assert record.timestamp > 0
    assert [one for one in await read(store) if one.key == record.key] == found


async def test_a_log_is_read_in_order_from_any_record(rig: Rig, store: DeadLetterStore) -> None:
    log, _ = store.order((await read(store))[-1].id)
    ids = [await store.append(log, b"%d" % number, {"n": str(number)}) for number in range(4)]
    assert [store.order(id)[0] for id in ids] == [log] * 4
    assert sorted(ids, key=store.order) == ids

    found = await read(store, {log: ids[1]})
    assert [(one.id, one.body, one.text["n"]) for one in found] == [
        (ids[1], b"1", "1"), (ids[2], b"2", "2"), (ids[3], b"3", "3")
    ]  # fmt: skip
    for name in {store.order(one.id)[0] for one in await read(store)}:
        places = [place for at, place in map(store.order, ids_of(await read(store))) if at == name]
        assert places == sorted(set(places))


async def test_concurrently_appended_records_have_the_same_order_for_all_readers(
    rig: Rig, store: DeadLetterStore
) -> None:
    log, _ = store.order((await read(store))[-1].id)
    async with rig.broker.dead_letters() as other:
        ids = await asyncio.gather(
            *(one.append(log, b"x", {}) for one in (store, other) for _ in range(10))
        )
        assert len(set(ids)) == 20
        orders = [
            [one for one in ids_of(await read(reader)) if one in ids] for reader in (store, other)
        ]
    assert orders[0] == orders[1] == sorted(ids, key=store.order)


async def test_a_confirmed_record_can_be_read_at_once(store: DeadLetterStore) -> None:
    log, _ = store.order((await read(store))[-1].id)
    for _ in range(10):
        id = await store.append(log, b"", {})
        assert ids_of(await read(store, {log: id})) == [id]
    assert await read(store, {}) == []


@pytest.mark.parametrize("text", ["", " ", "no id", "-1", "1 ", "\u0661", "9" * 500, "0" * 20])
async def test_a_malformed_id_is_refused_with_an_example(store: DeadLetterStore, text: str) -> None:
    with pytest.raises(ValueError, match="such as"):
        store.order(text)


async def test_a_message_is_sent_back_unchanged(rig: Rig, store: DeadLetterStore) -> None:
    channel = rig.named("back")
    sent = [
        await store.send(
            channel,
            DeadLetter(Record("0", 0.0, b"key", b"%d" % number, ())),
            [("own", b"value")],
        )
        for number in range(5)
    ]
    await asyncio.gather(*sent)
    assert [(one.key, one.body, list(one.headers)) for one in await rig.raws(channel, 5)] == [
        (b"key", b"%d" % number, [("own", b"value")]) for number in range(5)
    ]
    assert await store.exists(channel)


async def test_a_message_that_is_too_large_is_an_error(
    rig: Rig, store: DeadLetterStore, find: Find
) -> None:
    find(Features.SIZE)
    channel = rig.named("large")
    await rig.broker.create_channels([channel])
    large = DeadLetter(Record("0", 0.0, b"key", b"x" * 3_000_000, ()))
    with pytest.raises(TooLarge):
        await (await store.send(channel, large, []))


async def test_of_four_concurrent_replays_each_dead_letter_is_sent_by_one(
    rig: Rig, store: DeadLetterStore
) -> None:
    channel = rig.named("replayed")
    ids = frozenset(await append(store, channel, *(b"%d" % number for number in range(5))))
    ready = asyncio.Barrier(4)

    async def replay(store: DeadLetterStore) -> list[str]:
        search = await found(store, ids)
        await ready.wait()
        return [one.reason async for one in replayed(store, search)]

    async with AsyncExitStack() as connected:
        stores = [await connected.enter_async_context(rig.broker.dead_letters()) for _ in range(4)]
        reasons = await asyncio.gather(*map(replay, stores))
    assert Counter(bool(reason) for some in reasons for reason in some) == {False: 5, True: 15}

    await rig.delivered(channel, 5)
    await rig.idle(channel)
    assert sorted(raw.body or b"" for raw in await rig.raws(channel, 5)) == [
        b"0", b"1", b"2", b"3", b"4"
    ]  # fmt: skip
    search = await found(store, ids)
    assert {search.states.of(id) for id in ids} == {State.REPLAYED}


async def test_an_interrupted_replay_may_have_been_sent(
    rig: Rig, store: DeadLetterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    (id,) = await append(store, rig.named("interrupted"), b"body")
    handed_over = asyncio.Event()

    async def send(*_: object) -> "asyncio.Future[object]":
        handed_over.set()
        return asyncio.get_running_loop().create_future()  # the broker never confirms it

    async def exists(channel: str) -> bool:
        return True

    async def replay() -> None:
        async with rig.broker.dead_letters() as other:
            search = await found(other, frozenset({id}))
            monkeypatch.setattr(other, "send", send)
            monkeypatch.setattr(other, "exists", exists)
            async for _ in replayed(other, search):
                pass

    replaying = asyncio.create_task(replay())
    await asyncio.wait_for(handed_over.wait(), 20)
    replaying.cancel()
    await asyncio.wait([replaying])
    assert (await found(store, frozenset({id}))).states.of(id) is State.BEGUN
    monkeypatch.setattr(states, "BEGUN_SECONDS", 0)
    assert (await found(store, frozenset({id}))).states.of(id) is State.UNCONFIRMED


async def test_a_discarded_dead_letter_is_closed(rig: Rig, store: DeadLetterStore) -> None:
    channel = rig.named("discarded")
    kept, discarded = await append(store, channel, b"kept", b"discarded")
    search = await found(store, frozenset({discarded}))
    async for _ in discard(store, (one async for one, _ in search.dead_letters())):
        pass

    search = Search(store, Filter(channel=channel))
    await search.prepare()
    assert [(one.id, state) async for one, state in search.dead_letters()] == [
        (kept, State.OPEN), (discarded, State.DISCARDED)
    ]  # fmt: skip
    search = Search(store, Filter(channel=channel, states=TO_DO))
    await search.prepare()
    assert [one.id async for one, _ in search.dead_letters()] == [kept]


async def test_one_dead_letter_is_found_by_its_id(rig: Rig, store: DeadLetterStore) -> None:
    first, second, _ = await append(store, rig.named("one"), b"1", b"2", b"3")
    search = await found(store, frozenset({second}))
    assert [(one.id, one.body) async for one, _ in search.dead_letters()] == [(second, b"2")]
    change = StateChange(State.DISCARDED, [first])
    log, _ = store.order(first)
    no_dead_letter = await store.append(log, change.body, change.headers)
    with pytest.raises(NotFound, match=no_dead_letter):
        await found(store, frozenset({no_dead_letter}))


async def test_the_span_of_a_replay_has_the_usual_attributes(
    rig: Rig, store: DeadLetterStore
) -> None:
    (record, *_) = await read(store)
    span, link = store.attributes("events", DeadLetter(record))
    assert span["messaging.system"] == rig.broker.system
    assert (span["messaging.operation.name"], span["messaging.destination.name"]) == (
        "send", "events"
    )  # fmt: skip
    assert span["messaging.destination.template"] == "events"
    assert link["messaging.destination.name"] == DEAD_LETTERS


async def test_an_unreachable_broker_raises_with_the_reason(row: Row) -> None:
    with refusing_port() as port, pytest.raises(Unreachable) as raised:
        async with Rig(row, f"127.0.0.1:{port}").broker.dead_letters():
            pass
    assert str(raised.value)


async def test_many_dead_letters_are_read_completely(rig: Rig, store: DeadLetterStore) -> None:
    channel, number = rig.named("many"), 1000
    for start in range(0, number, 100):
        await asyncio.gather(
            *(
                rig.broker.send(
                    DEAD_LETTERS,
                    body=b"%d" % one,
                    key=b"%d" % one,
                    headers={"dead-letter.channel": channel},
                    correlation_id=None,
                )
                for one in range(start, start + 100)
            )
        )
    for _ in range(2):
        search = Search(store, Filter(channel=channel))
        await search.prepare()
        read = [int(one.body or b"") async for one, _ in search.dead_letters()]
        assert sorted(read) == [*range(number)]


async def append(store: DeadLetterStore, channel: str, *bodies: bytes) -> list[str]:
    """Append dead letters of a channel to one log, and return their ids."""
    log, _ = store.order((await read(store))[-1].id)
    return [await store.append(log, body, {"dead-letter.channel": channel}) for body in bodies]


async def found(store: DeadLetterStore, ids: frozenset[str]) -> Search:
    search = Search(store, Filter(ids=ids))
    await search.prepare()
    return search


def replayed(store: DeadLetterStore, search: Search) -> AsyncIterator[Outcome]:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    dead_letters = (one async for one, _ in search.dead_letters())
    return Replay(store, tracer, search.ends).send(dead_letters)


def ids_of(records: list[Record]) -> list[str]:
    return [one.id for one in records]
