"""The embedded broker serves real clients."""

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from faststream_otel.kafka.embedded import embedded_kafka


async def test_what_is_produced_is_consumed() -> None:
    with embedded_kafka(["events"]) as address:
        async with AIOKafkaProducer(bootstrap_servers=address) as producer:
            await producer.send_and_wait("events", b"hello", key=b"k", headers=[("h", b"1")])
        async with AIOKafkaConsumer(
            "events", bootstrap_servers=address, auto_offset_reset="earliest"
        ) as consumer:
            message = await consumer.getone()
    assert (message.value, message.key, message.headers) == (b"hello", b"k", (("h", b"1"),))
