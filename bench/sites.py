"""The broker around a run: creates its channels as what is baked does, fills them, deletes them."""

import asyncio
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

from .measured.brokers import BROKERS
from .measured.flow import body, group

BATCH = 200
"""Messages that are published at once."""


class Site:
    """A server, and the channels of one run on it.

    Args:
        broker: Its kind.
        url: Its address, `host:port`.
        ours: Whether this run has started it.
    """

    def __init__(self, broker: str, url: str, *, ours: bool = False) -> None:
        self.broker, self.url, self.ours = broker, url, ours

    def channels(self, hops: int) -> tuple[str, ...]:
        run = uuid.uuid4().hex[:8]
        return tuple(f"bench-{run}-{number}" for number in range(hops + 1))

    @contextmanager
    def created(self, hops: int, partitions: int | None = None) -> Iterator[tuple[str, ...]]:
        """New channels for a flow of so many hops."""
        channels = self.channels(hops)
        asyncio.run(self.create(channels, partitions))
        try:
            yield channels
        finally:
            asyncio.run(self.delete(channels))

    async def create(self, channels: Sequence[str], partitions: int | None = None) -> None:
        from faststream_otel.messages.broker import Group

        with self._settings() as settings:
            # The last one too: RabbitMQ has messages only where there is a queue.
            await settings.broker().create_channels(
                channels, [Group(channel, group(channel)) for channel in channels]
            )

    def fill(self, channel: str, number: int, size: int) -> None:
        """Publish so many events of so many bytes."""
        asyncio.run(self.publish(channel, number, size))

    async def publish(self, channel: str, number: int, size: int) -> None:
        stock = BROKERS[self.broker](self.url)
        publisher = stock.publisher(channel)
        async with stock.broker:
            for start in range(0, number, BATCH):
                some = range(start, min(start + BATCH, number))
                await asyncio.gather(*(publisher.publish(body(one, size)) for one in some))

    async def delete(self, channels: Sequence[str]) -> None:
        raise NotImplementedError

    async def version(self) -> str:
        raise NotImplementedError

    @contextmanager
    def _settings(self) -> Iterator[Any]:
        kind = BROKERS[self.broker]
        made = getattr(import_module(f"faststream_otel.{kind.library}"), f"{kind.prefix}Settings")
        with patch.dict("os.environ", BROKER_URL=self.url):
            yield made()


class KafkaSite(Site):
    async def create(self, channels: Sequence[str], partitions: int | None = None) -> None:
        if partitions is None:
            await super().create(channels)
            return
        from aiokafka.admin import NewTopic

        async with self._admin() as admin:
            await admin.create_topics([NewTopic(one, partitions, 1) for one in channels])

    async def publish(self, channel: str, number: int, size: int) -> None:
        from aiokafka import AIOKafkaProducer

        async with AIOKafkaProducer(bootstrap_servers=self.url, linger_ms=5) as producer:
            partitions = sorted(await producer.partitions_for(channel))
            for one in range(number):
                partition = partitions[one % len(partitions)]
                await producer.send(channel, body(one, size), partition=partition)
            await producer.flush()

    def keep_in_flight(self, channels: Sequence[str], flows: int, number: int, size: int) -> None:
        """Publish an event whenever one has come out at the end, so that `flows` are on their way.

        Returns once so many have come out.
        """
        asyncio.run(self._keep_in_flight(channels, flows, number, size))

    async def _keep_in_flight(
        self, channels: Sequence[str], flows: int, number: int, size: int
    ) -> None:
        from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

        async with (
            AIOKafkaProducer(bootstrap_servers=self.url) as producer,
            AIOKafkaConsumer(
                channels[-1], bootstrap_servers=self.url, auto_offset_reset="earliest"
            ) as consumer,
        ):
            sent = arrived = 0
            while arrived < number:
                while sent < min(number, arrived + flows):
                    await producer.send(channels[0], body(sent, size))
                    sent += 1
                found = await consumer.getmany(timeout_ms=100)
                arrived += sum(map(len, found.values()))

    def wait_for_members(self, name: str, number: int) -> None:
        """Wait until a group has so many members, each with its partitions."""
        asyncio.run(asyncio.wait_for(self._wait_for_members(name, number), 60))

    async def _wait_for_members(self, name: str, number: int) -> None:
        async with self._admin() as admin:
            while True:
                (answer,) = await admin.describe_consumer_groups([name])
                (found,) = answer.groups  # code, name, state, type, protocol, members, …
                if found[2] == "Stable" and len(found[5]) == number:
                    return
                await asyncio.sleep(0.2)

    async def delete(self, channels: Sequence[str]) -> None:
        async with self._admin() as admin:
            await admin.delete_topics(list(channels))

    async def version(self) -> str:
        # The protocol does not tell.
        home = Path(os.environ.get("STACK_HOME", Path.home() / ".cache/project-stack"))
        jars = (home / "kafka/libs").glob("kafka-clients-*.jar") if self.ours else ()
        return next((jar.stem.rpartition("-")[2] for jar in jars), "not known")

    @asynccontextmanager
    async def _admin(self) -> Any:
        from aiokafka.admin import AIOKafkaAdminClient

        admin = AIOKafkaAdminClient(bootstrap_servers=self.url)
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()


class RabbitSite(Site):
    async def delete(self, channels: Sequence[str]) -> None:
        stock = BROKERS[self.broker](self.url)
        connection: Any = await stock.broker.connect()
        opened = await connection.channel()
        for channel in channels:
            await opened.queue_delete(group(channel))
            await opened.exchange_delete(channel)
        await stock.broker.stop()

    async def version(self) -> str:
        stock = BROKERS[self.broker](self.url)
        connection: Any = await stock.broker.connect()
        properties = connection.transport.connection.server_properties
        await stock.broker.stop()
        return str(properties["version"])


class NatsSite(Site):
    async def delete(self, channels: Sequence[str]) -> None:
        stock = BROKERS[self.broker](self.url)
        async with stock.broker:
            streams = (await stock.broker.connect()).jetstream()
            for channel in channels:
                await streams.delete_stream(channel)

    async def version(self) -> str:
        stock = BROKERS[self.broker](self.url)
        async with stock.broker:
            client: Any = await stock.broker.connect()
            found = client.connected_server_version
            return f"{found.major}.{found.minor}.{found.patch}"


SITES: dict[str, type[Site]] = {"kafka": KafkaSite, "rabbitmq": RabbitSite, "nats": NatsSite}


class Unavailable(Exception):
    """There is no such server here. Says what to do."""


@contextmanager
def served(broker: str, url: str) -> Iterator[Site]:
    """The server at this address; without one, a server that this machine can start.

    Raises:
        Unavailable: It can start none.
    """
    from library.brokers import servers

    started = {"kafka": servers.kafka, "rabbitmq": servers.rabbitmq, "nats": servers.nats_server}
    with ExitStack() as stack:
        ours = not url
        if ours:
            try:
                url = stack.enter_context(started[broker]()).url
            except servers.Missing as missing:
                raise Unavailable(
                    f"there is no {broker} here, and it cannot be started without {missing}. Name"
                    f" one, for example --broker {broker}=127.0.0.1:{PORTS[broker]}"
                ) from missing
        yield SITES[broker](broker, url, ours=ours)


PORTS = {"kafka": 9092, "rabbitmq": 5672, "nats": 4222}
