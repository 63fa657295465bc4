"""A consumer's time-outs follow from the retry policy."""

from typing import Any

import pytest
from faststream_otel.kafka.settings import KafkaSettings
from faststream_otel.service import Service


@pytest.mark.parametrize(
    ("timeout", "batch", "seconds"),
    [
        (10, False, 300),  # aiokafka's own
        (10, True, 300),
        (100, False, 3 * 100 + 0.6 + 60),
        (24, True, 13 * 24 + 0.6 + 60),
        (600, True, 13 * 600 + 0.6 + 60),
    ],
)
def test_a_consumer_stays_in_its_group_while_handlers_run(
    timeout: float, batch: bool, seconds: float
) -> None:
    settings = KafkaSettings(
        handler_timeout_seconds=timeout, retry_attempts=3, retry_backoff_seconds=0.2
    )
    service = Service("patient", settings)

    @service.subscriber("events", batch=batch)
    async def handle(body: str) -> None: ...

    subscriber: Any = service.broker.faststream.subscribers[0]
    options = subscriber._connection_args
    assert options["max_poll_interval_ms"] == pytest.approx(seconds * 1000)
