"""The example's commands place orders, and say in one sentence why they could not."""

import importlib.util
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from faststream_otel.dev import trace
from faststream_otel.dev.otlp import Link
from faststream_otel.dev.project import Project, UserError

from ..conftest import TEMPLATE
from .conftest import Keep
from .spans import TRACE, span

# Nothing in it needs to be rendered.
SPEC = importlib.util.spec_from_file_location("example", TEMPLATE / "example.py")
assert SPEC
assert SPEC.loader
example: Any = importlib.util.module_from_spec(SPEC)
sys.modules["example"] = example
SPEC.loader.exec_module(example)


class _Orders(BaseHTTPRequestHandler):
    """An orders service that refuses negative amounts."""

    taken: list[dict[str, Any]] = []  # noqa: RUF012 (set anew by the fixture)

    def do_POST(self) -> None:
        order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.taken.append(order)
        if order["amount_cents"] < 0:
            self._answer(422, {"detail": [{"loc": ["amount_cents"], "msg": "must be positive"}]})
        else:
            self._answer(202, {"order_id": "o-1", "trace_id": TRACE})

    def _answer(self, status: int, body: Any) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, format: str, *arguments: Any) -> None: ...


@pytest.fixture
def orders(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """The orders that a service took, at the port that ORDERS_PORT names."""
    _Orders.taken = []
    with ThreadingHTTPServer(("127.0.0.1", 0), _Orders) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("ORDERS_PORT", str(server.server_port))
        monkeypatch.setenv("JAEGER_PORT", "1")
        yield _Orders.taken
        server.shutdown()


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        example.cli(arguments)
    return int(ended.value.code or 0)


def test_order_is_placed_and_its_ids_are_printed(
    orders: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("order", "--sku", "mouse", "--country", "DE") == 0
    assert (orders[0]["sku"], orders[0]["country"]) == ("mouse", "DE")
    assert capsys.readouterr().out.splitlines() == [
        "order  o-1",
        f"trace  {TRACE}",
        "`make dev` shows its trace; after `make up`, Grafana does.",
    ]


@pytest.mark.parametrize("arguments", [[], ["--no-wait"]])
@pytest.mark.usefixtures("orders")
def test_order_leads_to_its_trace(
    arguments: list[str], keep: Keep, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(example, "console", example.Console())
    keep(span("POST /orders", 1))
    keep(span("batch", 2, trace_id="b" * 32, links=(Link(TRACE, f"{1:016x}"),)))
    assert run("order", *arguments) == 0
    _, _, *lines = capsys.readouterr().out.splitlines()
    links = trace.Traces(Project.here()).links(TRACE)
    assert lines[:2] == links
    assert ("POST /orders" in "".join(lines[2:])) == (not arguments)


@pytest.mark.parametrize(
    "arguments",
    [["order", "--quantity", "two"], ["load", "--rate", "0"], ["load", "--duration", "long"]],
)
def test_bad_arguments_are_named(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    assert f"Invalid value for '{arguments[1]}'" in capsys.readouterr().err


@pytest.mark.usefixtures("orders")
def test_refused_order_says_why() -> None:
    with pytest.raises(UserError, match=r"refused the order with status 422: .*must be positive"):
        example.cli(["order", "--amount-cents", "-1"])


@pytest.mark.parametrize("command", ["order", "load"])
def test_absent_service_is_one_sentence(
    command: str, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORDERS_PORT", "1")
    done = subprocess.run(
        [sys.executable, TEMPLATE / "example.py", command], capture_output=True, encoding="utf-8"
    )
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert re.match(r"No orders service answers at http://127.0.0.1:1 \(.*refused\): start", line)
    assert "ORDERS_PORT" in line


def test_load_keeps_its_rate_and_counts_outcomes(
    orders: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("load", "--rate", "40", "--duration", "1") == 0
    report = capsys.readouterr().out.splitlines()[1:]
    assert sum(map(int, re.findall(r"(\d+) (?:accepted|x )", "\n".join(report)))) == 40
    accepted = int(report[0].split()[2])
    assert len(orders) == 1 + accepted, "one to see whether the service is there, then the others"


def test_mix_holds_every_outcome() -> None:
    drawn = [example.mixed(declined=0.3, failing=0.3) for _ in range(200)]
    assert example.FAILS.order in drawn
    assert example.DECLINED.order in drawn
    assert any(order.country != "AQ" and order.amount_cents <= 100_000 for order in drawn)
