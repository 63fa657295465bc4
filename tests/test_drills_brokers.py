"""What the drills know of brokers other than Kafka, on real servers."""

import asyncio
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aio_pika
import nats
import pytest
from aio_pika.abc import ExchangeType
from faststream_otel.nats import messages as nats_messages
from faststream_otel.nats.embedded import embedded_nats
from faststream_otel.rabbitmq import messages as rabbitmq_messages
from faststream_otel.rabbitmq.embedded import installed, server_command
from library.brokers.servers import Process
from nats.js.api import AckPolicy, ConsumerConfig
from ports import free_ports

from bench.drills.accounting import Headers
from bench.drills.brokers import nats as drills_nats
from bench.drills.brokers import rabbitmq as drills_rabbitmq
from bench.drills.brokers.nats import InNats
from bench.drills.brokers.rabbitmq import USER, InRabbit
from bench.drills.channels import Channels, Message
from bench.drills.faults.poison import ODD, poison
from bench.drills.flow import CONSUMERS, DEAD_LETTERS

NAMES = [*CONSUMERS, DEAD_LETTERS]
PASSWORD = "drills"
SENT: Headers = [("content-type", b"application/json"), ("x-note", b"1")]

Acknowledge = Callable[[], Any]


@dataclass(frozen=True)
class Rig:
    """A server with the channels of the example.

    Attributes:
        receive: Receives some messages of a channel, like its consumer. Gives a function for each
            that acknowledges it. At the end the consumer goes away.
    """

    channels: Channels
    receive: Callable[[str, int], AbstractAsyncContextManager[Sequence[Acknowledge]]]


@contextmanager
def on_nats() -> Iterator[Rig]:
    with embedded_nats(NAMES) as address:

        async def add_consumers() -> None:
            client = await nats.connect(f"nats://{address}")
            for channel, service in CONSUMERS.items():
                stream = channel.replace(".", "_")
                durable = ConsumerConfig(
                    durable_name=f"{service}-{stream}", ack_policy=AckPolicy.EXPLICIT
                )
                await client.jetstream().add_consumer(stream, durable)
            await client.close()

        @asynccontextmanager
        async def receive(channel: str, count: int) -> AsyncIterator[Sequence[Acknowledge]]:
            client = await nats.connect(f"nats://{address}")
            durable = f"{CONSUMERS[channel]}-{channel.replace('.', '_')}"
            consumer = await client.jetstream().pull_subscribe(channel, durable)
            messages = await consumer.fetch(count)
            yield [message.ack_sync for message in messages]
            await client.close()

        asyncio.run(add_consumers())
        yield Rig(InNats(address), receive)


@contextmanager
def on_rabbitmq() -> Iterator[Rig]:
    port = free_ports(1)[0]
    with ExitStack() as stack:
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="rabbitmq-", ignore_cleanup_errors=True)
        )
        configuration = (
            f"listeners.tcp.1 = 127.0.0.1:{port}\n"
            f"default_user = {USER}\ndefault_pass = {PASSWORD}\n"
        )
        command, variables = server_command(Path(folder), [port, *free_ports(2)], configuration)
        log = Path(folder, "output")
        stack.enter_context(Process(port, command, log, variables).running())

        def control(*arguments: str) -> str:
            return subprocess.run(
                [installed().with_name("rabbitmqctl"), *arguments],
                env=dict(variables), capture_output=True, text=True, check=True,
            ).stdout  # fmt: skip

        async def connect() -> Any:
            return await aio_pika.connect(f"amqp://{USER}:{PASSWORD}@127.0.0.1:{port}/")

        async def declare() -> None:
            async with await connect() as connection:
                channel = await connection.channel()
                for name in NAMES:
                    exchange = await channel.declare_exchange(
                        name, ExchangeType.FANOUT, durable=True
                    )
                    if name in CONSUMERS:
                        queue = await channel.declare_queue(
                            f"{CONSUMERS[name]}.{name}", durable=True,
                            arguments={"x-queue-type": "quorum"},
                        )  # fmt: skip
                        await queue.bind(exchange)

        @asynccontextmanager
        async def receive(channel: str, count: int) -> AsyncIterator[Sequence[Acknowledge]]:
            received: asyncio.Queue[Any] = asyncio.Queue()
            async with await connect() as connection:
                own = await connection.channel()
                await own.set_qos(prefetch_count=count)
                queue = await own.get_queue(f"{CONSUMERS[channel]}.{channel}")
                await queue.consume(received.put)
                yield [(await received.get()).ack for _ in range(count)]

        asyncio.run(declare())
        yield Rig(InRabbit(f"127.0.0.1:{port}", PASSWORD, control), receive)


@pytest.fixture(scope="module", params=[on_nats, on_rabbitmq], ids=["nats", "rabbitmq"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    with ExitStack() as stack:
        try:
            rig = stack.enter_context(request.param())
        except FileNotFoundError as error:
            pytest.skip(str(error))
        rig.channels.prepare()
        yield rig


def some(channel: str, count: int, **options: Any) -> list[Message]:
    return [Message(channel, b'{"order_id": "%d"}' % n, SENT, **options) for n in range(count)]


def test_what_was_sent_after_an_end_is_read_in_its_order(rig: Rig) -> None:
    rig.channels.send(some("trial.given", 3))
    since = rig.channels.ends()
    sent = some("payments.declined", 300, key=b"k") + some(DEAD_LETTERS, 2)
    positions = rig.channels.send(sent)

    found = rig.channels.read(since)

    assert len(set(positions)) == len(sent)
    for channel in ("payments.declined", DEAD_LETTERS):
        there = [one for one in found if one.channel == channel]
        assert [one.position for one in there] == [one for one in positions if one[0] == channel]
        assert [one.value for one in there] == [one.value for one in sent if one.channel == channel]
    assert len(found) == len(sent)
    assert {one.key for one in found if one.channel != DEAD_LETTERS} == {b"k"}
    assert {tuple(one.exact) for one in found} == {tuple(SENT)}
    assert rig.channels.read(rig.channels.ends()) == []


def test_records_may_be_read_again(rig: Rig) -> None:
    since = rig.channels.ends()
    rig.channels.send(some("trial.given", 2))
    assert rig.channels.read(since) == rig.channels.read(since) != []


async def test_a_message_is_unread_until_it_is_acknowledged(rig: Rig) -> None:
    def unread() -> int:
        return rig.channels.unread()["orders.placed", ""]

    await asyncio.to_thread(rig.channels.send, some("orders.placed", 3))
    assert await asyncio.to_thread(unread) == 3
    async with rig.receive("orders.placed", 3) as (first, second, third):
        assert await asyncio.to_thread(unread) == 3
        for acknowledge, left in ((first, 2), (second, 1), (third, 0)):
            await acknowledge()
            assert await asyncio.to_thread(unread) == left


def test_what_the_broker_carries_arrives_as_it_was_sent(rig: Rig) -> None:
    since = rig.channels.ends()
    made = [*poison("shipments.dispatched", 0).values()]
    carried = [one for one in made if rig.channels.carries(one)]
    positions = rig.channels.send(carried)

    found = {one.position: one for one in rig.channels.read(since)}

    assert len(carried) >= 6
    assert not any(one.value is None or [*one.headers][-len(ODD) :] == [*ODD] for one in carried)
    for message, position in zip(carried, positions, strict=True):
        assert found[position].value == message.value
        assert sorted(found[position].exact) == sorted(message.headers)


@pytest.mark.parametrize("made", [InNats, lambda address: InRabbit(address, "", str)])
def test_a_broker_that_does_not_answer_is_an_error(made: Callable[[str], Channels]) -> None:
    with pytest.raises(OSError, match="127"):
        made(f"127.0.0.1:{free_ports(1)[0]}").ends()


def test_the_headers_of_the_library_have_their_names() -> None:
    """The drills know them without the library."""
    assert drills_nats.KEY == nats_messages.KEY
    assert drills_rabbitmq.KEY == rabbitmq_messages.KEY
    assert drills_rabbitmq.SENT_AT == rabbitmq_messages.PUBLISHED
