"""RabbitMQ's own metrics are asked in addition: without them, the rest of the lag is known."""

import asyncio
import logging
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from faststream_otel.rabbitmq import RabbitSettings, in_flight
from faststream_otel.rabbitmq.in_flight import InFlight

from ..ports import refusing_port


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


class Metrics(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'rabbitmq_detailed_queue_messages_unacked{vhost="/",queue="q"} 3\n')

    def log_message(self, *_: object) -> None: ...


async def test_a_node_is_asked_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with refusing_port() as port, HTTPServer(("127.0.0.1", 0), Metrics) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        threading.Thread(target=server.handle_request, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert await InFlight(RabbitSettings(broker_metrics_url=url)).by_queue() == {"q": 3}
