"""RabbitMQ's own metrics are asked in addition: without them, the rest of the lag is known."""

import asyncio
import logging
import threading

import pytest
from faststream_otel.rabbitmq import RabbitSettings, in_flight
from faststream_otel.rabbitmq.in_flight import InFlight


async def test_a_node_that_answers_too_slowly_does_not_hold_up_the_lag(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = threading.Event()
    # Each read of a trickle is in time; so is the lookup of a name, which has no time-out.
    monkeypatch.setattr(in_flight, "_get", lambda _: str(asked.wait(30)))
    monkeypatch.setattr(in_flight, "SECONDS", 0.05)
    try:
        async with asyncio.timeout(10):
            found = await InFlight(
                RabbitSettings(broker_metrics_url="http://rabbitmq:15692")
            ).by_queue()
    finally:
        asked.set()
    assert found == {}
    (warning,) = (one for one in caplog.records if one.levelno >= logging.WARNING)
    assert warning.getMessage().endswith("no answer within 0.05 s")
