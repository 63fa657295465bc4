"""Every codec is read, and a message that unpacks to more than a dead letter stops nothing."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaProducer
from faststream_otel import Service
from faststream_otel.kafka import KafkaSettings
from faststream_otel.kafka.dead_letters import KafkaDeadLetters
from faststream_otel.kafka.embedded import embedded_kafka
from faststream_otel.kafka.messages import MAX_DEAD_LETTER_BYTES, MAX_MESSAGE_BYTES
from faststream_otel.messages.dead_letters.dead_letter import DeadLetter

CODECS = [None, "gzip", "snappy", "lz4", "zstd"]
LARGE = 2 * MAX_DEAD_LETTER_BYTES


@pytest.fixture
def kafka() -> Iterator[str]:
    """A broker of its own, with nothing in the dead letters."""
    with embedded_kafka(["numbers", "dead-letters"]) as address:
        yield address


@asynccontextmanager
async def counting(settings: KafkaSettings) -> AsyncIterator[asyncio.Queue[int]]:
    """A service that takes numbers, and what it took."""
    service = Service("counting", settings)
    taken: asyncio.Queue[int] = asyncio.Queue()

    @service.subscriber("numbers")
    async def count(number: int) -> None:
        taken.put_nowait(number)

    async with service.broker.faststream as connected:
        await connected.start()
        yield taken


async def dead_letters(settings: KafkaSettings) -> list[DeadLetter]:
    async with KafkaDeadLetters(settings) as store:
        found = [DeadLetter(record) async for record in store.read()]
    return sorted(found, key=lambda one: one.message_id)


async def test_each_codec_is_read(kafka: str) -> None:
    for number, codec in enumerate(CODECS):
        async with AIOKafkaProducer(bootstrap_servers=kafka, compression_type=codec) as producer:
            await producer.send_and_wait("numbers", str(number).encode() + b" " * 100)
    async with counting(KafkaSettings(broker_url=kafka)) as taken, asyncio.timeout(20):
        assert {await taken.get() for _ in CODECS} == set(range(len(CODECS)))


async def test_what_is_too_large_for_a_dead_letter_is_cut(kafka: str) -> None:
    settings = KafkaSettings(broker_url=kafka)
    async with AIOKafkaProducer(
        bootstrap_servers=kafka, compression_type="gzip", max_request_size=10 * LARGE
    ) as producer:
        for value, key, headers in [
            (b"x" * LARGE, b"body", [("tenant", b"acme")]),
            (b"x", b"note", [("tenant", b"acme"), ("note", b"\xff" * 800 * 1024)]),
            (b"x", b"k" * LARGE, []),
            (b"x", b"all", [("correlation_id", b"c" * LARGE), ("content-type", b"t" * LARGE)]),
            (b"7", b"", []),
        ]:
            await producer.send_and_wait("numbers", value, key, partition=1, headers=headers)
    async with counting(settings) as taken, asyncio.timeout(20):
        assert await taken.get() == 7

    found = await dead_letters(settings)
    assert [one.truncated for one in found] == [["body"], ["headers"], ["key"], ["headers"]]
    assert [one.record.key for one in found] == [b"body", b"note", None, b"all"]
    assert [one.body for one in found[1:]] == [b"x"] * 3
    assert found[0].body
    assert MAX_MESSAGE_BYTES - 1000 < len(found[0].body) <= MAX_MESSAGE_BYTES
    assert found[0].body_size == LARGE
    kept = [dict(one.headers) for one in found]
    assert [headers.get("tenant") for headers in kept] == [b"acme", b"acme", None, None]
    assert "note" not in kept[1]
    for offset, one in enumerate(found):
        assert (one.channel, one.message_id) == ("numbers", f"1/{offset}")
        assert one.reason
        assert one.trace_id
