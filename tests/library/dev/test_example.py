"""The example's commands place orders, and say in one sentence why they could not."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from .conftest import Keep
from .spans import TRACE, span
from faststream_otel.dev import backend
from UNKNOWN_example.__main__ import main
from UNKNOWN_example.orders import ORDERS, mixed
from faststream_otel.dev.http import HttpServer
from faststream_otel.dev.model import Link
from faststream_otel.dev.trace import links


class _Orders(BaseHTTPRequestHandler):
    """An orders service that refuses negative amounts and is away in Antarctica."""

    taken: list[dict[str, Any]] = []  # noqa: RUF012 (set anew by the fixture)

    def do_POST(self) -> None:
        order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.taken.append(order)
        if order["amount_cents"] < 0:
            self._answer(422, {"errors": [{"field": "amount_cents", "reason": "must be positive"}]})
        elif order["country"] == "AQ":
            self._answer(503, {"errors": [{"field": "", "reason": "try again later"}]})
        else:
            self._answer(202, {"order_id": "o-1", "trace_id": TRACE})

    def _answer(self, status: int, body: Any) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    _Orders.taken = []
    server = HttpServer(("127.0.0.1", 0), _Orders)
    server.start()
    monkeypatch.setenv("ORDERS_PORT", str(server.server_port))
    monkeypatch.setenv(backend.PORT_VARIABLE, "1")
    yield _Orders.taken
    server.stop()


def test_order_is_placed_and_its_ids_are_printed(
    orders: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["order", "--sku", "mouse", "--country", "DE"]) == 0
    assert (orders[0]["sku"], orders[0]["country"]) == ("mouse", "DE")
    assert capsys.readouterr().out.splitlines() == [
        "order  o-1",
        f"trace  {TRACE}",
        "Its trace is shown where `make dev` runs; in Grafana once `make up` does.",
    ]


@pytest.mark.parametrize("arguments", [[], ["--no-wait"]])
@pytest.mark.usefixtures("orders")
def test_order_leads_to_its_trace(
    arguments: list[str], keep: Keep, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(span("POST /orders", 1))
    keep(span("batch", 2, trace_id="b" * 32, links=(Link(TRACE, f"{1:016x}"),)))
    assert main(["order", *arguments]) == 0
    there = links(TRACE)
    _, _, *lines = capsys.readouterr().out.splitlines()
    drawn = lines[len(there) :]
    assert lines[: len(there)] == there
    assert bool(drawn) == (not arguments)
    assert not drawn or "POST /orders" in "".join(drawn)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["order", "--quantity", "two"], "argument --quantity: invalid int value: 'two'"),
        (["load", "--rate", "0"], "argument --rate: 0 is no number from 0.1 to 200"),
        (["load", "--duration", "long"], "argument --duration: long is no number from 1 to 86400"),
    ],
)
def test_bad_arguments_are_named(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--amount-cents", "-1"], "refused with status 422: amount_cents: must be positive"),
        (["--country", "AQ"], "refused with status 503: try again later"),
    ],
)
@pytest.mark.usefixtures("orders")
def test_refused_order_says_why(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["order", *arguments]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("command", ["order", "load"])
def test_absent_service_is_one_sentence(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ORDERS_PORT", "1")
    assert main([command]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "No orders service answers at http://127.0.0.1:1 (connection refused)" in line
    assert "ORDERS_PORT" in line


def test_load_keeps_its_rate_and_counts_outcomes(
    orders: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["load", "--rate", "40", "--duration", "1"]) == 0
    assert len(orders) == 41, "one to see whether the service is there, then 40"
    report = capsys.readouterr().out.partition(" 1 s ")[2]
    (accepted,) = map(int, re.findall(r"(\d+) accepted", report))
    assert accepted + sum(map(int, re.findall(r"(\d+) x ", report))) == 40
    assert threading.active_count() < 10


def test_mix_holds_every_outcome() -> None:
    drawn = [mixed(declined=0.3, failing=0.3) for _ in range(200)]
    assert ORDERS["fails"] in drawn
    assert ORDERS["is declined"] in drawn
    assert any(order.country != "AQ" and order.amount_cents <= 100_000 for order in drawn)
