"""Retry and dead letters for an application's own broker."""

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage, KafkaRouter, TestKafkaBroker
from faststream_otel.kafka import KafkaRetryMiddleware, RetryPolicy
from pydantic import BaseModel

POLICY = RetryPolicy(attempts=2, backoff=0.001, timeout=1)


class Order(BaseModel):
    amount: int


class Bench:
    """A broker with retries, and the dead letters that it published."""

    def __init__(self, retry: KafkaRetryMiddleware | None = None) -> None:
        self.retry = retry or KafkaRetryMiddleware(POLICY)
        self.broker = KafkaBroker(
            middlewares=[self.retry], logger=None, **self.retry.broker_options
        )
        self.dead_letters: list[tuple[bytes, dict[str, str]]] = []

        @self.broker.subscriber("dead-letters", group_id="test")
        async def keep(message: KafkaMessage) -> None:
            self.dead_letters.append((message.body, message.headers))

    async def publish(self, *bodies: Any) -> None:
        async with TestKafkaBroker(self.broker):
            for body in bodies:
                await self.broker.publish(body, "orders")

    async def publish_batch(self, *bodies: str) -> None:
        async with TestKafkaBroker(self.broker):
            await self.broker.publish_batch(*bodies, topic="orders")


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_a_failed_message_is_retried_then_becomes_a_dead_letter(
    bench: Bench,
) -> None:
    calls = []

    @bench.broker.subscriber("orders", group_id="test")
    async def fails(body: str) -> None:
        calls.append(body)
        raise LookupError(body)

    await bench.publish("x")
    assert calls == ["x", "x"]
    ((body, headers),) = bench.dead_letters
    assert body == b"x"
    assert headers["dead-letter.error.type"] == "LookupError"


async def test_a_failed_message_of_a_router_becomes_a_dead_letter() -> None:
    bench, router = Bench(), KafkaRouter(ack_policy=AckPolicy.NACK_ON_ERROR)

    @router.subscriber("orders", group_id="test")
    async def fails(body: str) -> None:
        raise LookupError(body)

    bench.broker.include_router(router)
    await bench.publish("x")
    assert len(bench.dead_letters) == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_message_that_does_not_fit_a_handler_of_fastapis_router_is_not_retried(
    caplog: pytest.LogCaptureFixture,
) -> None:
    from faststream.kafka import fastapi  # it is deprecated, and warns of that

    router = fastapi.KafkaRouter(middlewares=[KafkaRetryMiddleware(POLICY)], logger=None)
    dead_letters = []

    @router.subscriber("orders", group_id="test", ack_policy=AckPolicy.NACK_ON_ERROR)
    async def handle(order: Order) -> None: ...

    @router.subscriber("dead-letters", group_id="test", ack_policy=AckPolicy.NACK_ON_ERROR)
    async def keep(message: fastapi.KafkaMessage) -> None:
        dead_letters.append(message.headers)

    with caplog.at_level(logging.WARNING):
        async with TestKafkaBroker(router.broker):
            await router.broker.publish({"amount": "ada-lovelace"}, "orders")
    (headers,) = dead_letters
    assert headers["dead-letter.attempts"] == "1"
    assert headers["dead-letter.reason"].startswith("body.amount: Input should be")
    assert "ada-lovelace" not in str(headers)
    assert "The subscriber of" not in caplog.text


async def test_a_message_that_does_not_fit_is_a_dead_letter_at_once(bench: Bench) -> None:
    calls = []

    @bench.broker.subscriber("orders", group_id="test")
    async def takes(order: Order) -> None:
        calls.append(order)

    await bench.publish({"amount": "much"}, {"amount": 1})
    assert calls == [Order(amount=1)]
    assert [json.loads(body) for body, _ in bench.dead_letters] == [{"amount": "much"}]


async def test_each_broker_has_its_own_dead_letters() -> None:
    """One object serves two brokers: a dead letter goes to the broker of its message."""
    retry = KafkaRetryMiddleware(POLICY)
    one, other = Bench(retry), Bench(retry)
    for bench in (one, other):

        @bench.broker.subscriber("orders", group_id="test")
        async def fails(body: str) -> None:
            raise LookupError(body)

    await one.publish("x")
    await other.publish("y")
    assert [body for body, _ in one.dead_letters] == [b"x"]
    assert [body for body, _ in other.dead_letters] == [b"y"]


async def test_a_failed_batch_is_handled_message_by_message(bench: Bench) -> None:
    handled: list[str] = []

    @bench.broker.subscriber("orders", group_id="test", batch=True)
    async def handles(bodies: list[str]) -> None:
        if "bad" in bodies:
            raise LookupError
        handled.extend(bodies)

    await bench.publish_batch("good", "bad")
    assert handled == ["good"]
    assert [body for body, _ in bench.dead_letters] == [b"bad"]


async def test_a_failed_batch_with_a_publisher_is_not_split(bench: Bench) -> None:
    """FastStream would not publish the results of single messages."""
    handled: list[list[str]] = []

    @bench.broker.subscriber("orders", group_id="test", batch=True)
    @bench.broker.publisher("totals")
    async def totals(bodies: list[str]) -> int:
        handled.append(bodies)
        raise LookupError

    await bench.publish_batch("one", "two")
    assert handled == [["one", "two"]] * 2
    assert [body for body, _ in bench.dead_letters] == [b"one", b"two"]


def without_options(retry: KafkaRetryMiddleware) -> KafkaBroker:
    return KafkaBroker(middlewares=[retry], logger=None)


def with_options(retry: KafkaRetryMiddleware) -> KafkaBroker:
    return KafkaBroker(middlewares=[retry], logger=None, **retry.broker_options)


async def test_a_router_without_the_policy_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """FastStream applies the broker's policy only to the broker's own subscribers."""
    broker, router = with_options(KafkaRetryMiddleware(POLICY)), KafkaRouter()

    @router.subscriber("orders", group_id="test")
    async def handles(body: str) -> None: ...

    broker.include_router(router)
    async with TestKafkaBroker(broker):
        await broker.publish("x", "orders")
    assert "acknowledges a message before it is handled" in caplog.text
    assert "FastAPI's router" in caplog.text  # it does not take the options


@pytest.mark.parametrize(
    ("make", "options", "said"),
    [
        (without_options, {"group_id": "test"}, "acknowledges a message before it is handled"),
        (with_options, {}, "has no group_id"),
        (with_options, {"group_id": "test"}, ""),
    ],
)
async def test_a_subscriber_that_can_lose_messages_is_logged_once(
    make: Callable[[KafkaRetryMiddleware], KafkaBroker],
    options: dict[str, Any],
    said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = make(KafkaRetryMiddleware(POLICY))

    async def handles(body: str) -> None: ...

    broker.subscriber("orders", **options)(handles)

    async with TestKafkaBroker(broker):
        await broker.publish("x", "orders")
        await broker.publish("y", "orders")
    warnings = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert len(warnings) == bool(said)
    assert all("orders" in one and said in one for one in warnings)
