"""The commands say in one sentence what is wrong, and give links that lead to the trace."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from devtools import project
from devtools.__main__ import main
from devtools.http import HttpServer
from devtools.orders import ORDERS, mixed
from devtools.tempo import explore_link

TRACE = "0af7651916cd43dd8448eb211c80319c"


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
    monkeypatch.setenv("TEMPO_PORT", "1")
    monkeypatch.setenv("GRAFANA_PORT", "3001")
    yield _Orders.taken
    server.stop()


def test_order_prints_ids_and_a_link_to_the_trace(
    orders: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["order", "--sku", "mouse", "--country", "DE"]) == 0
    assert (orders[0]["sku"], orders[0]["country"]) == ("mouse", "DE")
    assert capsys.readouterr().out.split() == [
        "order", "o-1", "trace", TRACE, explore_link("http://127.0.0.1:3001", TRACE),
    ]  # fmt: skip


def test_link_names_the_data_source_and_the_trace() -> None:
    link = urlsplit(explore_link("http://127.0.0.1:3000", TRACE))
    assert (link.netloc, link.path) == ("127.0.0.1:3000", "/explore")
    query = parse_qs(link.query)
    assert query["schemaVersion"] == ["1"]
    (pane,) = json.loads(query["panes"][0]).values()
    assert pane["datasource"] == "tempo"
    assert pane["queries"][0]["queryType"] == "traceql"
    assert pane["queries"][0]["query"] == TRACE


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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["order", "--quantity", "two"], "argument --quantity: invalid int value: 'two'"),
        (["load", "--rate", "0"], "argument --rate: 0 is no number from 0.1 to 200"),
        (["load", "--duration", "long"], "argument --duration: long is no number from 1 to 86400"),
        (["sink", "--grpc-port", "70000"], "argument --grpc-port: 70000 is no port"),
        (["dance"], "argument command: invalid choice: 'dance'"),
        ([], "the following arguments are required: command"),
    ],
)
def test_bad_arguments_are_named(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_bad_port_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ORDERS_PORT", "http")
    assert main(["urls"]) == 1
    assert capsys.readouterr().err == (
        "ORDERS_PORT=http is no port: use a number from 1 to 65535, for example ORDERS_PORT=8000.\n"
    )


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


def test_ports_come_from_dotenv(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRAFANA_PORT", raising=False)
    (tmp_path / ".env").write_text("# ports\n#GRAFANA_PORT=1\nGRAFANA_PORT='3333' # moved\n")
    assert project.port("GRAFANA_PORT", tmp_path) == 3333
    assert project.port("LOKI_PORT", tmp_path) == 3100
    monkeypatch.setenv("GRAFANA_PORT", "4444")
    assert project.port("GRAFANA_PORT", tmp_path) == 4444
