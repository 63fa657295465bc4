"""A copy of all telemetry reaches another destination, which never delays the stores."""

import gzip
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme
from collector import Collector, attributes, running, span
from personal import PASSWORD

TOKEN = f"token-{secrets.token_hex(16)}"
SIGNALS = {"traces": "span", "metrics": "metric", "logs": "record"}


def send_everything(collector: Collector, mark: str) -> None:
    """Send a span, a metric and a log record, each with the mark and with a secret."""
    noted = attributes({"mark": mark, "password": PASSWORD})
    now = str(time.time_ns())
    sent = span(name=f"span of {mark}", attributes=noted)
    collector.send_spans([sent], **{"service.name": "sender"})
    point = {"timeUnixNano": now, "asInt": "1", "attributes": noted}
    gauge = {"name": f"metric of {mark}", "gauge": {"dataPoints": [point]}}
    collector.send("metrics", {"resourceMetrics": [{"scopeMetrics": [{"metrics": [gauge]}]}]})
    body = {"stringValue": f"record of {mark}"}
    record = {"timeUnixNano": now, "body": body, "attributes": noted}
    collector.send("logs", {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]})


def arrived(collector: Collector, mark: str) -> None:
    """Wait until a collector has all that was sent, and what is counted of the span; masked."""
    for signal, what in SIGNALS.items():
        written = collector.wait_for(signal, lambda found: f"{what} of {mark}" in found)  # noqa: B023
        assert PASSWORD not in written
    collector.wait_for("metrics", lambda found: "traces.span.metrics.calls" in found)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "forward-ca.pem")
    authority.cert_pem.write_to_path(folder / "clients-ca.pem")
    for name in ("collector", "client"):
        issued = authority.issue_cert("127.0.0.1")
        issued.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
        issued.private_key_pem.write_to_path(folder / f"{name}.key")
    return folder


@pytest.mark.parametrize("tls", ["server", "mutual"])
def test_a_copy_of_everything_reaches_a_second_collector(
    tls: str, default_project: Path, certificates: Path, tmp_path: Path
) -> None:
    own = certificates / "client.pem", certificates / "client.key"
    certificate, key = map(str, own) if tls == "mutual" else ("", "")
    folders = tmp_path / "first", tmp_path / "second"
    for folder in folders:
        folder.mkdir()
    with (
        running(
            default_project, folders[1], tls=tls, auth="bearer",
            CERTIFICATES=str(certificates), OTLP_TOKEN=TOKEN,
        ) as second,
        running(
            default_project, folders[0], forward="otlp", FORWARD_ENDPOINT=second.url,
            FORWARD_HEADERS=f'{{authorization: "Bearer {TOKEN}"}}',
            FORWARD_CA_FILE=str(certificates / "forward-ca.pem"),
            FORWARD_CERTIFICATE_FILE=certificate, FORWARD_KEY_FILE=key,
        ) as first,
    ):  # fmt: skip
        send_everything(first, "copied")
        arrived(first, "copied")
        arrived(second, "copied")
    assert TOKEN not in (folders[0] / "output").read_text()


@dataclass
class Elsewhere:
    """A destination that accepts OTLP over HTTP, or refuses it with a status."""

    url: str = ""
    status: int = 503
    taken: list[bytes] = field(default_factory=list)
    asked_for: set[str] = field(default_factory=set)
    refused: int = 0


@contextmanager
def elsewhere() -> Iterator[Elsewhere]:
    place = Elsewhere()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            place.asked_for.add(self.path)
            body = gzip.decompress(self.rfile.read(int(self.headers["Content-Length"])))
            if place.status == 200:
                place.taken.append(body)
            else:
                place.refused += 1
            self.send_response(place.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        place.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield place
        server.shutdown()


@pytest.mark.parametrize("status", [503, 401], ids=["down", "wrong token"])
def test_a_destination_that_accepts_nothing_delays_nothing(
    status: int, default_project: Path, tmp_path: Path
) -> None:
    """Senders are accepted and the stores get everything once, though the copy's queue is full."""
    at_once = {"sending_queue": {"batch": {"min_size": 0}}}
    with (
        elsewhere() as place,
        running(
            default_project, tmp_path, forward="otlp", FORWARD_ENDPOINT=place.url,
            FORWARD_QUEUE_SIZE="2", added={"exporters": {"otlp_http/forward": at_once}},
        ) as collector,
    ):  # fmt: skip
        place.status = status
        marks = [f"mark-{number:02}" for number in range(20)]
        for mark in marks:
            send_everything(collector, mark)
        for signal, what in SIGNALS.items():
            last = f"{what} of {marks[-1]}"
            written = collector.wait_for(signal, lambda found: last in found)  # noqa: B023
            assert [written.count(f'"{what} of {mark}"') for mark in marks] == [1] * len(marks)
        assert place.refused
        assert not place.taken


def test_telemetry_sent_while_the_destination_was_down_arrives_later(
    default_project: Path, tmp_path: Path
) -> None:
    """The queue is on disk: it outlives the Collector too."""
    with elsewhere() as place:
        for status in (503, 200):
            place.status = status
            with running(
                default_project, tmp_path, forward="otlp", FORWARD_ENDPOINT=place.url
            ) as collector:
                if status == 503:
                    send_everything(collector, "late")
                    arrived(collector, "late")
                    continue
                deadline = time.monotonic() + 30
                while not any(b"record of late" in body for body in place.taken):
                    assert time.monotonic() < deadline, (tmp_path / "output").read_text()[-3000:]
                    time.sleep(0.1)


def test_the_copy_may_go_through_a_proxy(default_project: Path, tmp_path: Path) -> None:
    with (
        elsewhere() as proxy,
        running(
            default_project, tmp_path, forward="otlp",
            FORWARD_ENDPOINT="http://otlp.invalid", FORWARD_PROXY=proxy.url,
        ) as collector,
    ):  # fmt: skip
        proxy.status = 200
        send_everything(collector, "proxied")
        arrived(collector, "proxied")  # the stores get it without the proxy
        whole = {f"http://otlp.invalid/v1/{signal}" for signal in SIGNALS}
        deadline = time.monotonic() + 30
        while proxy.asked_for != whole:
            assert time.monotonic() < deadline, proxy.asked_for
            time.sleep(0.1)


def test_without_an_endpoint_the_collector_does_not_start(
    default_project: Path, tmp_path: Path
) -> None:
    with (
        pytest.raises(AssertionError, match="endpoint"),
        running(default_project, tmp_path, forward="otlp"),
    ):
        pass
