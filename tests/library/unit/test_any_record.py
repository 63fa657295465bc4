"""Any record in Kafka is handled, or becomes a dead letter that can be sent back unchanged."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import ConsumerRecord
from faststream.kafka import KafkaBroker, KafkaMessage, TestKafkaBroker
from faststream.kafka.parser import AioKafkaBatchParser, AioKafkaParser
from faststream_otel import Service
from faststream_otel.kafka import KafkaSettings
from faststream_otel.messages.dead_letters.dead_letter import DeadLetter, Record
from faststream_otel.messages.dead_letters.show import Links, as_json, as_text
from faststream_otel.messages.dead_letters.states import State
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry import propagate
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from pydantic import BaseModel

from .test_dead_letters import MemoryStore, Operator

Headers = Sequence[tuple[str, bytes | None]]
Dead = Any
"""A record of the dead letters."""

OURS = {"traceparent", "tracestate", "baggage", "flow-started"}
"""Headers that each publication sets, so they are not sent back."""

NAMES = st.sampled_from(
    [*OURS, "content-type", "correlation_id", "reply_to", "x", "", "dead-letter.channel",
     "dead-letter.headers", "dead-letter.state", "dead-letter.tombstone"]
) | st.text(max_size=8)  # fmt: skip
VALUES = (
    st.none()
    | st.binary(max_size=20)
    | st.text(max_size=20).map(str.encode)
    | st.sampled_from([b"", b"application/json", b"text/plain", b"replayed", b"[]", b"\xff"])
)
HEADERS = st.lists(st.tuples(NAMES, VALUES), max_size=6)
BODIES = st.none() | st.binary(max_size=40) | st.sampled_from([b"", b"[", b'{"name": "other"}'])
RECORDS = st.fixed_dictionaries(
    {
        "value": BODIES,
        "headers": HEADERS,
        "key": st.none() | st.binary(max_size=10),
        "timestamp": st.none() | st.integers(-(2**63), 2**63 - 1),
    }
)
quickly = settings(max_examples=40, deadline=None, database=None)


class Item(BaseModel):
    name: str


def record(
    value: bytes | None = b'{"name": "good"}',
    headers: Headers = (),
    key: bytes | None = None,
    timestamp: int | None = 1_700_000_000_000,
    *,
    topic: str = "items",
    offset: int = 0,
) -> "ConsumerRecord[bytes, bytes]":
    """A record as the client returns it."""
    lengths = len(key or b""), len(value or b"")
    return ConsumerRecord(
        topic, 1, offset, timestamp, 0, key, value, None, *lengths, tuple(headers)
    )


class Counter:
    """A service that handles items, one by one and in batches, and records its dead letters.

    It fails for items with the name `bad`.
    """

    def __init__(self) -> None:
        self.service = service = Service("counter", KafkaSettings(retry_attempts=1))
        self.handled: list[str] = []
        self.dead: list[Dead] = []

        def sell(item: Item) -> None:
            if item.name == "bad":
                raise LookupError("no price")
            self.handled.append(item.name)

        @service.subscriber("items")
        async def one(item: Item) -> None:
            sell(item)

        @service.subscriber("lists", batch=True)
        async def many(items: list[Item]) -> None:
            for item in items:
                sell(item)

        self.dead_letters = KafkaBroker(decoder=lambda message: message.body)

        @self.dead_letters.subscriber("dead-letters")
        async def keep(message: KafkaMessage) -> None:
            self.dead.append(message.raw_message)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Counter"]:
        self.handled.clear()
        self.dead.clear()
        async with TestKafkaBroker(self.service.broker.faststream, self.dead_letters):
            yield self

    async def take(self, *records: Any) -> None:
        """Deliver one record of `items`, or records of `lists` as one batch."""
        topic = records[0].topic
        subscribers: Sequence[Any] = self.service.broker.faststream.subscribers
        (subscriber,) = (one for one in subscribers if topic in one.topic_names)
        await subscriber.process_message(records if topic == "lists" else records[0])

    async def take_each(self, records: Sequence[Any]) -> None:
        if records[0].topic == "lists":
            await self.take(*records)
        else:
            for one in records:
                await self.take(one)


COUNTER = Counter()


def bodies(dead: Sequence[Dead]) -> list[bytes | None]:
    """The bodies of dead letters; None for a tombstone."""
    return [None if dict(one.headers).get("dead-letter.tombstone") else one.value for one in dead]


def offsets(dead: Sequence[Dead]) -> list[int]:
    return [int(dict(one.headers)["dead-letter.message-id"].partition(b"/")[2]) for one in dead]


@pytest.mark.parametrize("topic", ["items", "lists"])
@pytest.mark.parametrize(
    "headers",
    [
        [("x", None)],
        [
            ("content-type", None),
            ("correlation_id", None),
            ("traceparent", None),
            ("reply_to", None),
        ],
        [("x", b"\xff\xfe")],
        [("x", b"1"), ("x", b"2"), ("content-type", b"application/json")],
        [("content-type", b"application/json"), ("content-type", None)],
        [("", b""), ("baggage", b"\xff"), ("tracestate", b"\x80"), ("flow-started", b"\xff")],
    ],
)
async def test_a_message_with_any_headers_is_handled(topic: str, headers: Headers) -> None:
    async with COUNTER.running():
        await COUNTER.take(record(headers=headers, topic=topic))
    assert COUNTER.handled == ["good"]
    assert COUNTER.dead == []


@pytest.mark.parametrize("content_type", [b"\xff\xfe", b"application/xml", b"text/plain"])
async def test_an_unknown_content_type_makes_an_ordinary_dead_letter(
    content_type: bytes,
) -> None:
    first, last = record(topic="lists"), record(topic="lists", offset=2)
    odd = record(b"\xff", [("content-type", content_type)], topic="lists", offset=1)
    async with COUNTER.running():
        await COUNTER.take(first, odd, last)
    assert COUNTER.handled == ["good", "good"]
    assert (bodies(COUNTER.dead), offsets(COUNTER.dead)) == ([b"\xff"], [1])


class Failing(TraceContextTextMapPropagator):
    """A propagator that raises on malformed headers."""

    def extract(self, carrier: Any, context: Any = None, getter: Any = None) -> Any:
        raise LookupError(carrier)

    @property
    def fields(self) -> set[str]:
        return {"x-trace"}


@pytest.mark.parametrize("topic", ["items", "lists"])
async def test_a_propagator_that_raises_loses_only_the_trace(
    topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(propagate, "get_global_textmap", Failing)
    monkeypatch.setattr(propagate, "extract", Failing().extract)
    async with COUNTER.running():
        await COUNTER.take(record(headers=[("x-trace", b"1"), ("baggage", b"a=b")], topic=topic))
    assert COUNTER.handled == ["good"]


@pytest.mark.parametrize("topic", ["items", "lists"])
async def test_a_dead_letter_has_the_baggage_of_its_message(topic: str) -> None:
    given = [
        record(b'{"name": "bad"}', [("baggage", tenant)], topic=topic, offset=offset)
        for offset, tenant in enumerate([b"tenant=acme", b"tenant=initech"])
    ]
    async with COUNTER.running():
        await COUNTER.take_each(given)
    carried = [dict(one.headers)["baggage"] for one in COUNTER.dead]
    assert carried == [b"tenant=acme", b"tenant=initech"]


@pytest.mark.parametrize("topic", ["items", "lists"])
async def test_an_unparsable_record_is_a_dead_letter_with_the_reason(
    topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FastStream by itself would skip the message without logging it."""

    def refusing(parse: Any) -> Any:
        async def parse_or_refuse(self: Any, message: Any) -> Any:
            records = message if isinstance(message, tuple) else (message,)
            if any((one.topic, one.value) == (topic, b"bad") for one in records):
                raise LookupError("no use for this")
            return await parse(self, message)

        return parse_or_refuse

    parser, name = {
        "items": (AioKafkaParser, "parse_message"),
        "lists": (AioKafkaBatchParser, "parse_batch"),
    }[topic]
    monkeypatch.setattr(parser, name, refusing(getattr(parser, name)))
    counter = Counter()
    records = [
        record(topic=topic),
        record(b"bad", [("x", None)], b"k", topic=topic, offset=1),
        record(topic=topic, offset=2),
    ]
    async with counter.running():
        await counter.take_each(records)
    assert counter.handled.count("good") >= 2
    (dead,) = counter.dead
    assert (dead.key, dead.value, offsets([dead])) == (b"k", b"bad", [1])
    assert dict(dead.headers)["dead-letter.reason"] == b"no use for this"
    assert dict(dead.headers)["dead-letter.attempts"] == b"1"


@quickly
@given(RECORDS, st.booleans())
@example({"value": None, "headers": [("x", None)], "key": b"", "timestamp": -1}, True)
def test_any_record_is_handled_or_becomes_one_dead_letter(
    given: dict[str, Any], batch: bool
) -> None:
    topic = "lists" if batch else "items"
    records = [
        record(topic=topic), record(**given, topic=topic, offset=1), record(topic=topic, offset=2)
    ]  # fmt: skip

    async def run() -> None:
        async with COUNTER.running():
            await COUNTER.take_each(records)

    asyncio.run(run())
    assert COUNTER.handled.count("good") >= 2
    if COUNTER.dead:
        assert bodies(COUNTER.dead) == [given["value"]]
        assert offsets(COUNTER.dead) == [1]
        assert (COUNTER.dead[0].key or None) == (
            given["key"] or None
        )  # the test broker turns None into an empty key
        assert "other" not in COUNTER.handled[3:]
    else:
        assert json.loads(given["value"])["name"] in COUNTER.handled


@quickly
@given(HEADERS, st.binary(max_size=10), st.booleans())
@example([("x", b"\xff\xfe"), ("x", None), ("x", b""), ("content-type", b"")], b"key", False)
@example([("b", b"1"), ("content-type", b"application/json"), ("a", b"2"), ("b", b"1")], b"", True)
def test_a_dead_letter_is_sent_back_byte_for_byte(
    headers: Headers, key: bytes, batch: bool
) -> None:
    """Except the headers that each publication sets: trace context and start of the flow."""
    given = record(b'{"name": "bad"}', headers, key, topic="lists" if batch else "items", offset=7)
    store = MemoryStore()
    store.channels = {"items", "lists"}

    async def run() -> None:
        async with COUNTER.running():
            await COUNTER.take(given)
        for one in COUNTER.dead:
            store.logs["a"].append(Record("a#0", 1.0, one.key, one.value, tuple(one.headers)))
        outcomes = await Operator(store).replay()
        assert [one.reason for one in outcomes] == [""]

    asyncio.run(run())
    ((destination, sent_key, value, sent),) = store.sent
    assert (destination, sent_key, value) == (given.topic, key, given.value)
    own = [one for one in headers if one[0] not in OURS]
    assert [*sent][: len(own)] == own
    assert {name for name, _ in [*sent][len(own) :]} == {"traceparent"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.just("base64"), each),
    max_leaves=8,
).map(lambda value: json.dumps(value).encode())


@quickly
@given(HEADERS, st.lists(JSON | st.binary(max_size=20), max_size=2), RECORDS)
def test_any_record_of_the_dead_letters_can_be_listed(
    headers: list[tuple[str, bytes | None]], exact: list[bytes], given: dict[str, Any]
) -> None:
    headers += [("dead-letter.headers", one) for one in exact]
    found = DeadLetter(Record("0/0", 1.0, given["key"], given["value"], headers))
    json.loads(as_json(found, State.OPEN, Links("")))
    text = as_text(found, State.OPEN, Links(""), body=True)
    assert all(character.isprintable() for character in text.replace("\n", ""))
    for name, _ in found.headers:
        name.encode()
