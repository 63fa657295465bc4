"""A whole service over RabbitMQ: dead letters by the command line, a restart, a deleted queue."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import aio_pika
import pytest
from faststream_otel.rabbitmq.embedded import embedded_rabbitmq

from .test_nats_service import FILES, Shop, until


class RabbitShop(Shop):
    def ping(self, *texts: str) -> None:
        async def publish() -> None:
            async with await aio_pika.connect(f"amqp://{self._broker}") as connection:
                pings = await (await connection.channel()).get_exchange("pings")
                for text in texts:
                    await pings.publish(aio_pika.Message(text.encode()), "")

        asyncio.run(publish())


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    try:
        with embedded_rabbitmq() as broker:
            yield broker
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture
def shop(tmp_path: Path, server: str) -> Iterator[RabbitShop]:
    settings = "from faststream_otel.rabbitmq import RabbitSettings as Settings\n"
    for name, text in (FILES | {"settings.py": settings}).items():
        path = tmp_path / "shop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    with ExitStack() as started:
        shop = RabbitShop(tmp_path, server, started)
        shop.command("channels")
        yield shop


def test_dead_letters_are_listed_replayed_and_discarded(shop: RabbitShop) -> None:
    broken = shop.start(BROKEN="1")
    broken.wait_ready()
    shop.ping("a", "b")
    until(lambda: len(shop.listed("dead-letters")) == 2, broken)
    assert broken.output.read_text().count("handles a") == 3  # the attempts
    assert broken.stop() == 0

    first, _ = shop.listed("dead-letters")
    assert (first["channel"], first["error_type"]) == ("pings", "LookupError")
    assert [lag["ready"] for lag in shop.listed("lag")] == [0]

    shop.command("discard", first["id"])
    shop.command("replay", "--all")
    assert [lag["ready"] for lag in shop.listed("lag")] == [1]
    fixed = shop.start()
    until(lambda: "handled b" in fixed.output.read_text(), fixed)
    assert "handles a" not in fixed.output.read_text()
    assert fixed.stop() == 0


def test_messages_from_before_the_first_start_are_handled(shop: RabbitShop) -> None:
    """`channels` has created the queue."""
    shop.ping("early")
    process = shop.start()
    until(lambda: "handled early" in process.output.read_text(), process)
    assert process.stop() == 0


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_message_in_flight_is_handled_by_the_next_instance(
    shop: RabbitShop, end: signal.Signals
) -> None:
    first = shop.start(SECONDS="60", DRAIN_TIMEOUT_SECONDS="0.5")
    first.wait_ready()
    shop.ping("one")
    until(lambda: "handles one" in first.output.read_text(), first)
    first.stop(end)
    second = shop.start()
    until(lambda: "handled one" in second.output.read_text(), second)
    assert second.stop() == 0
    assert not [one for one in shop.listed("dead-letters") if "Cancel" in one["error_type"]]
