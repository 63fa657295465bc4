"""Connects services in memory, for tests."""

from collections.abc import Collection, Generator
from contextlib import contextmanager, suppress
from typing import Any

from faststream.exceptions import SubscriberNotFound
from faststream.rabbit import RabbitBroker, TestRabbitBroker
from faststream.rabbit.testing import FakeProducer, PatchedMessage


class InMemory(TestRabbitBroker):
    """FastStream's test broker, with batches of one message, and channels that nobody consumes.

    Args:
        brokers: The brokers to connect.
        batches: Their subscribers that take batches.
    """

    def __init__(self, *brokers: RabbitBroker, batches: Collection[Any]) -> None:
        super().__init__(*brokers, connect_only=False)
        self._batches = batches

    @contextmanager
    def _patch_producer(self, broker: RabbitBroker) -> Generator[None, None, None]:
        with super()._patch_producer(broker):  # which restores the producer
            config: Any = broker.config.broker_config
            config.producer = _Producer(broker, self.brokers, self._batches)
            yield


class _Producer(FakeProducer):
    def __init__(self, broker: RabbitBroker, brokers: Any, batches: Collection[Any]) -> None:
        super().__init__(broker, brokers)
        self._batches = batches

    async def publish(self, cmd: Any) -> None:
        with suppress(SubscriberNotFound):
            await super().publish(cmd)

    async def _execute_handler(self, msg: PatchedMessage, handler: Any) -> PatchedMessage:
        await handler.process_message((msg,) if handler in self._batches else msg)
        return msg
