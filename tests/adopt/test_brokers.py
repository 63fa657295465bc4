"""The recipes for RabbitMQ and NATS, on their real servers: a result, and a dead letter."""

import asyncio
from pathlib import Path
from typing import Any

import aio_pika
import nats
import pytest
from faststream_otel.nats.embedded import embedded_nats
from faststream_otel.rabbitmq.embedded import embedded_rabbitmq

from . import page

RESULT = b"User: 1 - Ann registered"
MESSAGES = [b'{"user": "Ann", "user_id": -1}', b'{"user": "Ann", "user_id": 1}']


def recipe(name: str, url: str, ours: str) -> Any:
    """The broker of a recipe, at this address."""
    path = Path(page.RECIPES / name / "service.py")
    text = path.read_text("utf-8")
    assert f'"{url}"' in text
    found: dict[str, Any] = {"__name__": "service"}
    exec(compile(text.replace(f'"{url}"', f'"{ours}"'), path, "exec"), found)
    return found["broker"]


@pytest.fixture(autouse=True)
def _silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")


async def test_nats() -> None:
    with embedded_nats() as address:
        client = await nats.connect(f"nats://{address}")
        stream = client.jetstream()
        await stream.add_stream(name="users", subjects=["users.in", "users.out"])
        await stream.add_stream(name="dead-letters", subjects=["dead-letters"])
        results = await stream.subscribe("users.out")
        dead_letters = await stream.subscribe("dead-letters")
        broker = recipe("nats", "nats://localhost:4222", f"nats://{address}")
        await broker.start()
        try:
            for message in MESSAGES:
                await stream.publish("users.in", message)
            assert (await results.next_msg(timeout=20)).data == RESULT
            assert (await dead_letters.next_msg(timeout=20)).data == MESSAGES[0]
        finally:
            await broker.stop()
            await client.close()


async def test_rabbitmq() -> None:
    try:
        server = embedded_rabbitmq()
        address = await asyncio.to_thread(server.__enter__)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    try:
        client = await aio_pika.connect(f"amqp://{address}")
        channel = await client.channel()
        results = await channel.declare_queue("users.out", durable=True)
        broker = recipe("rabbitmq", "amqp://localhost", f"amqp://{address}")
        await broker.start()
        try:
            for message in MESSAGES:
                await channel.default_exchange.publish(aio_pika.Message(message), "users.in")
            async with asyncio.timeout(20), results.iterator(no_ack=True) as found:
                assert (await anext(found)).body == RESULT
        finally:
            await broker.stop()
            await client.close()
    finally:
        await asyncio.to_thread(server.__exit__, None, None, None)
