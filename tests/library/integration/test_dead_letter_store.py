"""The promises of `DeadLetterStore`, for every broker, over a server."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from faststream_otel.kafka import KafkaSettings
from faststream_otel.kafka.embedded import embedded_kafka
from faststream_otel.messages.broker import Broker, TooLarge, Unreachable
from faststream_otel.messages.dead_letters import DEAD_LETTERS
from faststream_otel.messages.dead_letters.dead_letter import DeadLetter, Record
from faststream_otel.messages.dead_letters.headers import encoded_headers
from faststream_otel.messages.dead_letters.replay import Replay
from faststream_otel.messages.dead_letters.search import Filter, Search
from faststream_otel.messages.dead_letters.states import State
from faststream_otel.messages.dead_letters.store import DeadLetterStore
from opentelemetry.sdk.trace import TracerProvider

from ..ports import refusing_port

FAILED = {"dead-letter.channel": "numbers", "dead-letter.message-id": "1", "tenant": "é€"}


@dataclass(frozen=True)
class Server:
    """A broker's server, which has the channel `numbers` and that of the dead letters."""

    broker: Broker
    log: str
    """One of those in which it keeps dead letters."""


@pytest.fixture(scope="module")
def kafka() -> Iterator[Server]:
    with embedded_kafka(["numbers", DEAD_LETTERS]) as address:
        yield Server(KafkaSettings(broker_url=address).broker(), log="0")


@pytest.fixture(params=["kafka"])
def server(request: pytest.FixtureRequest) -> Server:
    server: Server = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def broker(server: Server) -> Broker:
    return server.broker


@pytest.fixture
def log(server: Server) -> str:
    return server.log


@pytest.fixture
async def store(broker: Broker) -> AsyncIterator[DeadLetterStore]:
    async with broker.dead_letters() as store:
        yield store


async def read(store: DeadLetterStore, start: Mapping[str, str] | None = None) -> list[Record]:
    return [record async for record in store.read(start)]


async def test_what_is_appended_is_read_in_its_order_and_stays(
    store: DeadLetterStore, log: str
) -> None:
    before = time.time()
    ids = [await store.append(log, b"\x00\xff%d" % number, FAILED) for number in range(3)]

    for _ in range(2):
        found = [record for record in await read(store) if record.id in ids]
        assert [record.id for record in found] == ids
        assert [record.body for record in found] == [b"\x00\xff0", b"\x00\xff1", b"\x00\xff2"]
    assert {store.order(id)[0] for id in ids} == {log}
    places = [store.order(id)[1] for id in ids]
    assert places == sorted(set(places))
    assert found[0].text.items() >= FAILED.items()
    assert before - 60 < found[0].timestamp < time.time() + 60  # some keep whole seconds


async def test_reading_begins_where_it_is_asked_to(store: DeadLetterStore, log: str) -> None:
    ids = [await store.append(log, b"", FAILED) for _ in range(3)]
    assert [record.id for record in await read(store, {log: ids[1]})] == ids[1:]
    assert await read(store, {}) == []


async def test_what_was_confirmed_is_read_at_once(store: DeadLetterStore, log: str) -> None:
    for _ in range(10):
        id = await store.append(log, b"", FAILED)
        assert [record.id for record in await read(store, {log: id})] == [id]


@pytest.mark.parametrize("text", ["", " ", "no id", "-1", "1 ", "\u0661", "9" * 500, "0" * 20])
def test_what_is_no_id_is_refused_with_an_example(broker: Broker, text: str) -> None:
    with pytest.raises(ValueError, match="such as"):
        broker.dead_letters().order(text)


async def test_a_channel_exists_or_not(store: DeadLetterStore) -> None:
    assert await store.exists("numbers")
    assert await store.exists(DEAD_LETTERS)
    assert not await store.exists("nowhere")


async def test_a_record_that_is_too_large_is_an_error(store: DeadLetterStore) -> None:
    large = Record("0", 1.0, b"key", b"x" * 3_000_000, encoded_headers(FAILED))
    with pytest.raises(TooLarge):
        await (await store.send("numbers", DeadLetter(large), []))


async def test_a_span_says_where_it_sends_and_its_link_where_it_was(
    store: DeadLetterStore, log: str
) -> None:
    id = await store.append(log, b"five!", FAILED)
    (record, *_) = await read(store, {store.order(id)[0]: id})
    span, link = store.attributes("numbers", DeadLetter(record))
    assert span["messaging.destination.name"] == "numbers"
    assert span["messaging.message.body.size"] == 5
    assert link["messaging.destination.name"] == DEAD_LETTERS


async def test_of_four_replays_at_once_one_sends(
    broker: Broker, store: DeadLetterStore, log: str
) -> None:
    id = await store.append(log, b"4", FAILED)
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")

    async def replay(store: DeadLetterStore) -> list[str]:
        search = Search(store, Filter(ids=frozenset({id})))
        await search.prepare()
        await ready.wait()
        found = (one async for one, _ in search.dead_letters())
        return [one.reason async for one in Replay(store, tracer, search.ends).send(found)]

    ready = asyncio.Barrier(4)
    async with AsyncExitStack() as connected:
        stores: list[Any] = [
            await connected.enter_async_context(broker.dead_letters()) for _ in range(4)
        ]
        reasons = await asyncio.gather(*map(replay, stores))
    assert sorted(bool(reason) for some in reasons for reason in some) == [False, *[True] * 3]

    search = Search(store, Filter(ids=frozenset({id})))
    await search.prepare()
    assert search.states.of(id) is State.REPLAYED


@pytest.mark.parametrize("settings", [KafkaSettings])
async def test_a_broker_that_is_away_is_said_to_be(settings: Any) -> None:
    with refusing_port() as port:
        store = settings(broker_url=f"127.0.0.1:{port}").broker().dead_letters()
        with pytest.raises(Unreachable):
            async with store:
                pass
