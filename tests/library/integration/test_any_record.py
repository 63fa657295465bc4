"""A failed message is replayed unchanged from the dead letters, over a broker on TCP."""

import asyncio
from collections.abc import Iterator
from itertools import chain

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from faststream_otel import Service
from faststream_otel.kafka import KafkaSettings
from faststream_otel.kafka.embedded import embedded_kafka

from .conftest import PACKAGE, Start

Header = tuple[str, bytes | None]
Record = tuple[bytes | None, bytes | None, list[Header]]
"""Key, value and headers."""

RECORDS: list[Record] = [
    (b"key", b"bad", []),
    (b"key", b"bad", [("content-type", b"text/plain"), ("correlation_id", b"c-1")]),
    (None, b"\xff\x00", [("x", None), ("x", b"\xff\xfe"), ("x", b""), ("", b"1")]),
    (b"", b"", [("content-type", b""), ("b", b"2"), ("a", b"1"), ("b", b"2")]),
    (b"\x00\xff", None, [("dead-letter.channel", b"forged"), ("dead-letter.tombstone", b"true")]),
    (b"key", b"bad", [("correlation_id", None), ("content-type", b"\xff"), ("é€", "é€".encode())]),
    (None, None, [("x", None), ("y", b"1")]),
    (b"key", b"bad", [("n", str(number).encode()) for number in range(300)]),
]
PASSING: list[Header] = [("traceparent", b"\xff"), ("flow-started", b"1"), ("baggage", None)]


@pytest.fixture
def kafka() -> Iterator[str]:
    with embedded_kafka(["numbers", "lists", "back", "dead-letters"]) as address:
        yield address


@pytest.mark.parametrize("topic", ["numbers", "lists"])
def test_what_failed_comes_back_byte_for_byte(kafka: str, start: Start, topic: str) -> None:
    assert asyncio.run(fail(kafka, topic)) == [1, 2]
    command = ["-m", "faststream_otel.cli", "--app", PACKAGE, "replay", "--all", "--to", "back"]
    replay = start(*command, OTEL_SDK_DISABLED="true")
    assert replay.popen.wait(30) == 0, replay.output.read_text()

    back = asyncio.run(read(kafka, "back"))
    assert sorted(back, key=repr) == sorted(RECORDS, key=repr)


async def fail(broker: str, topic: str) -> list[int]:
    """Send all of them between two good ones, to a service that can handle but these two."""
    service = Service("counting", KafkaSettings(broker_url=broker, retry_attempts=1))
    handled: list[int] = []
    done = asyncio.Event()

    def take(number: int) -> None:
        handled.append(number)
        if number == 2:
            done.set()

    @service.subscriber("numbers")
    async def one(number: int) -> None:
        take(number)

    @service.subscriber("lists", batch=True)
    async def many(numbers: list[int]) -> None:
        for number in numbers:
            take(number)

    given = [(key, value, [*PASSING, *headers, *PASSING]) for key, value, headers in RECORDS]
    async with AIOKafkaProducer(bootstrap_servers=broker) as producer:
        for key, value, headers in [(None, b"1", []), *given, (None, b"2", [])]:
            if key is value is None:  # Kafka takes it, and `send` does not
                batch = producer.create_batch()
                batch.append(key=None, value=None, timestamp=None, headers=headers)
                await producer.send_batch(batch, topic, partition=0)
            else:
                await producer.send(topic, value, key, partition=0, headers=headers)
    async with service.broker.faststream as connected, asyncio.timeout(20):
        await connected.start()
        await done.wait()
    return handled


async def read(broker: str, topic: str) -> list[Record]:
    found: list[Record] = []
    async with AIOKafkaConsumer(
        topic, bootstrap_servers=broker, auto_offset_reset="earliest"
    ) as consumer:
        while records := await consumer.getmany(timeout_ms=1000):
            found += [(one.key, one.value, [*one.headers]) for one in chain(*records.values())]
    return found
