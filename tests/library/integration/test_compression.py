"""What others compress is read, and what unpacks to more than a dead letter takes stops nothing."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaProducer

from faststream_otel.messages.dead_letters.letter import Letter
from faststream_otel.kafka.broker import MAX_DEAD_LETTER_BYTES, MAX_MESSAGE_BYTES
from faststream_otel.kafka.dead_letters import DeadLetterTopic
from faststream_otel.service import Service
from faststream_otel.settings import Settings

from faststream_otel.kafka.embedded import embedded_kafka

CODECS = [None, "gzip", "snappy", "lz4", "zstd"]
LARGE = 2 * MAX_DEAD_LETTER_BYTES


@pytest.fixture
def kafka() -> Iterator[str]:
    """A broker of its own, with nothing in the dead letters."""
    with embedded_kafka(["numbers", "dead-letters"]) as address:
        yield address


@asynccontextmanager
async def counting(settings: Settings) -> AsyncIterator[asyncio.Queue[int]]:
    """A service that takes numbers, and what it took."""
    service = Service("counting", settings)
    taken: asyncio.Queue[int] = asyncio.Queue()

    @service.subscriber("numbers")
    async def count(number: int) -> None:
        taken.put_nowait(number)

    async with service.broker:
        await service.broker.start()
        yield taken


async def dead_letters(settings: Settings) -> list[Letter]:
    async with DeadLetterTopic(settings) as topic:
        letters = [Letter(record) async for record in topic.read(topic.first, topic.end)]
    return sorted(letters, key=lambda letter: letter.origin or (0, 0))


async def test_each_codec_is_read(kafka: str) -> None:
    for number, codec in enumerate(CODECS):
        async with AIOKafkaProducer(bootstrap_servers=kafka, compression_type=codec) as producer:
            await producer.send_and_wait("numbers", str(number).encode() + b" " * 100)
    async with counting(Settings(broker_url=kafka)) as taken, asyncio.timeout(20):
        assert {await taken.get() for _ in CODECS} == set(range(len(CODECS)))


async def test_what_is_too_large_for_a_dead_letter_is_cut(kafka: str) -> None:
    settings = Settings(broker_url=kafka)
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

    letters = await dead_letters(settings)
    assert [letter.truncated for letter in letters] == [["body"], ["headers"], ["key"], ["headers"]]
    assert [letter.record.key for letter in letters] == [b"body", b"note", None, b"all"]
    assert [letter.value for letter in letters[1:]] == [b"x"] * 3
    assert letters[0].value
    assert MAX_MESSAGE_BYTES - 1000 < len(letters[0].value) <= MAX_MESSAGE_BYTES
    assert letters[0].body_size == LARGE
    kept = [dict(letter.headers) for letter in letters]
    assert [headers.get("tenant") for headers in kept] == [b"acme", b"acme", None, None]
    assert "note" not in kept[1]
    for offset, letter in enumerate(letters):
        assert (letter.topic, str(letter.origin)) == ("numbers", f"1/{offset}")
        assert letter.reason
        assert letter.trace_id
