"""Retry and dead letters for an application's own NATS broker. Kafka's tests have the rest."""

import logging
from typing import Any

import pytest
from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, NatsMessage, PullSub, TestNatsBroker
from faststream_otel.nats import NatsRetryMiddleware, RetryPolicy

POLICY = RetryPolicy(attempts=2, backoff=0.001, timeout=1)
STREAM = JStream("orders", declare=False)
BATCH = PullSub(10, batch=True)


class Bench:
    """A broker with retries, and the dead letters that it published."""

    def __init__(self) -> None:
        retry = NatsRetryMiddleware(POLICY)
        self.broker = NatsBroker(middlewares=[retry], logger=None, **retry.broker_options)
        self.dead_letters: list[tuple[bytes, dict[str, str]]] = []

        @self.broker.subscriber("dead-letters", stream="dead-letters", pull_sub=True)
        async def keep(message: NatsMessage) -> None:
            self.dead_letters.append((message.body, message.headers))

    async def publish(self, body: Any, stream: str | None = "orders") -> None:
        async with TestNatsBroker(self.broker):
            await self.broker.publish(body, "orders", stream=stream)


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize("batch", [False, True])
async def test_a_failed_message_is_retried_then_becomes_a_dead_letter(
    bench: Bench, batch: bool
) -> None:
    calls = []

    @bench.broker.subscriber(
        "orders", stream=STREAM, durable="test", pull_sub=BATCH if batch else PullSub(1)
    )
    async def fails(body: Any) -> None:
        calls.append(body)
        raise LookupError(body)

    await bench.publish("x")
    assert calls == [["x"] if batch else "x"] * 2
    ((body, headers),) = bench.dead_letters
    assert body == b"x"
    assert headers["dead-letter.error.type"] == "LookupError"
    assert headers["dead-letter.channel"] == "orders"


@pytest.mark.filterwarnings("ignore:The JetStream Push consumer")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "has no stream"),
        ({"stream": STREAM, "pull_sub": True}, "has no durable consumer"),
        ({"stream": STREAM, "durable": "test", "ack_policy": AckPolicy.ACK_FIRST}, "before"),
        ({"stream": STREAM, "durable": "test", "pull_sub": True}, ""),
    ],
)
async def test_a_subscriber_that_can_lose_messages_is_logged_once(
    bench: Bench, caplog: pytest.LogCaptureFixture, options: dict[str, Any], said: str
) -> None:
    @bench.broker.subscriber("orders", **options)
    async def handles(body: str) -> None: ...

    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            await bench.publish("x", "orders" if "stream" in options else None)
    warnings = [one.getMessage() for one in caplog.records if "orders" in one.getMessage()]
    assert len(warnings) == bool(said)
    assert all(said in one for one in warnings)
