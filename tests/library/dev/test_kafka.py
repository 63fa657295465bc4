"""The embedded broker serves real clients."""

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from faststream_otel.kafka import KafkaSettings
from faststream_otel.kafka.embedded import embedded_kafka
from faststream_otel.messages.broker import Unreachable


async def test_what_is_produced_is_consumed() -> None:
    with embedded_kafka(["events"]) as address:
        async with AIOKafkaProducer(bootstrap_servers=address) as producer:
            await producer.send_and_wait("events", b"hello", key=b"k", headers=[("h", b"1")])
        async with AIOKafkaConsumer(
            "events", bootstrap_servers=address, auto_offset_reset="earliest"
        ) as consumer:
            message = await consumer.getone()
    assert (message.value, message.key, message.headers) == (b"hello", b"k", (("h", b"1"),))


async def test_a_cluster_without_a_controller_is_an_error_that_says_so() -> None:
    with embedded_kafka() as address:
        broker = KafkaSettings(broker_url=address).broker()
        with pytest.raises(Unreachable, match="it has no controller"):
            await broker.create_channels(["events"])
