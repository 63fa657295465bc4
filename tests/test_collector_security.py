"""OTLP with TLS, credentials and limits: who may send, and the errors for others.

The senders are the services' own telemetry, with only the standard variables.
"""

import base64
import gzip
import json
import re
import secrets
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import trustme
from bakery import Bakery
from collector import Collector, attributes, running, span
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from tools import tool

TOKEN = f"token-{secrets.token_hex(16)}"
PASSWORD = f"password-{secrets.token_hex(16)}"

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
HEADERS = "OTEL_EXPORTER_OTLP_HEADERS"
AUTHORITY = "OTEL_EXPORTER_OTLP_CERTIFICATE"
CERTIFICATE = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"
KEY = "OTEL_EXPORTER_OTLP_CLIENT_KEY"

Variables = dict[str, str]

# One process that is one service after the other, each with its variables; says what each logged.
SENDER = """
import io, json, logging, os, sys

from faststream_otel import Telemetry

common = dict(os.environ)
for mark, variables in json.load(sys.stdin).items():
    os.environ.clear()
    os.environ.update(common | variables)
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    logging.getLogger().addHandler(handler)
    telemetry = Telemetry("sender", make_global=False)
    with telemetry.tracer_provider.get_tracer("sender").start_as_current_span(mark):
        logging.getLogger("sender").warning(mark)
    telemetry.close(8)
    logging.getLogger().removeHandler(handler)
    print(json.dumps([mark, said.getvalue()]))
"""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What docs/security.md puts into the folder, and what clients and strangers have."""
    folder = tmp_path_factory.mktemp("certificates")
    ours, theirs = trustme.CA(), trustme.CA()
    ours.cert_pem.write_to_path(folder / "ca.pem")
    ours.cert_pem.write_to_path(folder / "clients-ca.pem")
    theirs.cert_pem.write_to_path(folder / "other-ca.pem")
    for name, issued in {
        "collector": ours.issue_cert("127.0.0.1", "otel-collector"),
        "client": ours.issue_cert("client.example"),
        "stranger": theirs.issue_cert("client.example"),
    }.items():
        issued.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
        issued.private_key_pem.write_to_path(folder / f"{name}.key")
    hashed = subprocess.run(
        [tool("openssl", "the Collector knows its senders"), "passwd", "-6", PASSWORD],
        capture_output=True,
        encoding="utf-8",
        check=True,
    ).stdout
    (folder / "otlp.htpasswd").write_text(f"team:{hashed}")
    return folder


def basic(password: str) -> str:
    credentials = base64.b64encode(f"team:{password}".encode()).decode()
    return f"Authorization=Basic%20{credentials}"


GOOD_BEARER = {HEADERS: f"Authorization=Bearer%20{TOKEN}"}
GOOD_BASIC = {HEADERS: basic(PASSWORD)}
TRUSTING = {AUTHORITY: "{files}/ca.pem"}
OF_OURS = {CERTIFICATE: "{files}/client.pem", KEY: "{files}/client.key"}

CASES: dict[tuple[str, str], tuple[list[Variables], list[Variables]]] = {
    ("off", "bearer"): (
        [GOOD_BEARER],
        [{}, {HEADERS: "Authorization=Bearer%20wrong"}, {HEADERS: f"Authorization={TOKEN}x"}],
    ),
    ("off", "basic"): (
        [GOOD_BASIC],
        [{}, {HEADERS: basic("wrong")}, {HEADERS: "Authorization=Basic%20Og=="}],
    ),
    ("server", "none"): (
        [TRUSTING],
        [{}, {AUTHORITY: "{files}/other-ca.pem"}],
    ),
    ("server", "bearer"): ([TRUSTING | GOOD_BEARER], [TRUSTING, GOOD_BEARER]),
    ("mutual", "basic"): (
        [TRUSTING | OF_OURS | GOOD_BASIC],
        [
            TRUSTING | GOOD_BASIC,
            TRUSTING | OF_OURS,
            TRUSTING | GOOD_BASIC
            | {CERTIFICATE: "{files}/stranger.pem", KEY: "{files}/stranger.key"},
        ],
    ),
}  # fmt: skip
"""By OTLP_TLS and OTLP_AUTH: the variables of senders that are let in, and of the others."""


def send(
    senders: dict[str, Variables], project: Path, certificates: Path, bakery: Bakery
) -> dict[str, str]:
    """Have each send a span and a log record; return what it logged about that."""
    script = project / "sender.py"
    script.write_text(SENDER)
    given = {
        mark: {name: value.format(files=certificates) for name, value in variables.items()}
        for mark, variables in senders.items()
    }
    # Trusted in place of what OTEL_EXPORTER_OTLP_CERTIFICATE says, over HTTP.
    known = {"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}
    done = subprocess.run(
        ["uv", "run", "--quiet", "python", script.name],
        cwd=project,
        env={name: value for name, value in bakery.environment().items() if name not in known},
        input=json.dumps(given),
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(line) for line in done.stdout.splitlines())


@pytest.mark.parametrize(("tls", "auth"), CASES, ids="-".join)
def test_only_senders_with_credentials_are_accepted(
    tls: str, auth: str, default_project: Path, certificates: Path, bakery: Bakery, tmp_path: Path
) -> None:
    senders: dict[str, Variables] = {}
    with running(
        default_project, tmp_path, tls=tls, auth=auth,
        CERTIFICATES=str(certificates), OTLP_TOKEN=TOKEN,
    ) as collector:  # fmt: skip
        for protocol, endpoint in (("grpc", collector.grpc), ("http/protobuf", collector.url)):
            common = {
                "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
                "OTEL_EXPORTER_OTLP_TIMEOUT": "1000",
                ENDPOINT: endpoint,
            }
            for kind, sets in zip(("let-in", "refused"), CASES[tls, auth], strict=True):
                for number, variables in enumerate(sets):
                    senders[f"{kind}-{protocol[:4]}-{number}"] = common | variables
            if tls != "off":  # as if it were not encrypted
                plain = endpoint.replace("https:", "http:")
                senders[f"refused-{protocol[:4]}-plain"] = common | sets[0] | {ENDPOINT: plain}
        said = send(senders, default_project, certificates, bakery)
        good = {mark for mark in senders if mark.startswith("let-in")}
        for signal in ("traces", "logs"):
            collector.wait_for(signal, lambda text: all(mark in text for mark in good))
        time.sleep(1)  # whatever else was taken
        for signal in ("traces", "logs"):
            assert "refused" not in collector.received(signal)

    assert said.keys() == senders.keys()
    for mark, text in said.items():
        if mark in good:
            assert text == f"{mark}\n"
        else:
            assert text.count("cannot be exported") == 1, (mark, text)
            assert "_HEADERS" in text
        assert TOKEN not in text
        assert PASSWORD not in text
    output = (tmp_path / "output").read_text()
    assert TOKEN not in output
    assert PASSWORD not in output


def test_the_document_makes_certificates_and_passwords_that_fit(
    bakery: Bakery, tmp_path: Path
) -> None:
    tool("openssl", "docs/security.md makes certificates that fit")
    project = bakery.bake({}, tmp_path / "baked")
    text = (project / "docs/security.md").read_text("utf-8")
    (block,) = re.findall(r"^    openssl req -x509(?:.*\n)(?:    .*\n)+", text, re.MULTILINE)
    commands = re.sub(r"^    ", "", block, flags=re.MULTILINE)
    bakery.run(project, "bash", "-euc", commands)

    files = project / "observability/certificates"
    senders = {
        f"let-in-{number}": {
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            AUTHORITY: str(project / "certificates/collector-ca.pem"),
            HEADERS: basic("a password"),
        }
        for number in range(2)
    }
    with running(project, tmp_path, tls="server", auth="basic", CERTIFICATES=str(files)) as made:
        endpoints = (made.grpc, made.grpc.replace("127.0.0.1", "localhost"))
        for variables, endpoint in zip(senders.values(), endpoints, strict=True):
            variables[ENDPOINT] = endpoint
        send(senders, project, files, bakery)
        made.wait_for("traces", lambda text: all(mark in text for mark in senders))


@pytest.mark.parametrize(
    ("auth", "said"), [("bearer", "no bearer token provided"), ("basic", "otlp.htpasswd")]
)
def test_without_its_secret_the_collector_does_not_start(
    auth: str, said: str, default_project: Path, tmp_path: Path
) -> None:
    with (
        pytest.raises(AssertionError, match=said),
        running(default_project, tmp_path, auth=auth, CERTIFICATES=str(tmp_path)),
    ):
        pass


@pytest.fixture(scope="module")
def collector(
    default_project: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Collector]:
    with running(default_project, tmp_path_factory.mktemp("open")) as collector:
        yield collector


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_an_oversized_request_is_refused_and_leaves_nothing(
    collector: Collector, packed: bool
) -> None:
    """However small it is on its way: the limit is that of the unpacked request."""
    mark = f"mark-{secrets.token_hex(4)}"
    large = ExportTraceServiceRequest()
    padded = large.resource_spans.add().scope_spans.add().spans.add(name=mark)
    padded.attributes.add(key="padding").value.string_value = "a" * 9_000_000
    body = large.SerializeToString()
    headers = {"Content-Type": "application/x-protobuf"}
    if packed:
        body = gzip.compress(body)
        headers["Content-Encoding"] = "gzip"
        assert len(body) < 100_000
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(
            urllib.request.Request(f"{collector.url}/v1/traces", body, headers), timeout=10
        )
    assert refused.value.code in {400, 413}

    with (
        grpc.insecure_channel(collector.grpc.removeprefix("http://")) as channel,
        pytest.raises(grpc.RpcError) as exhausted,
    ):
        TraceServiceStub(channel).Export(  # type: ignore[no-untyped-call]
            large,
            timeout=10,
            compression=grpc.Compression.Gzip if packed else grpc.Compression.NoCompression,
        )
    assert exhausted.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

    after = f"mark-{secrets.token_hex(4)}"
    collector.send_spans([span(attributes=attributes({"mark": after}))])
    assert mark not in collector.wait_for("traces", lambda text: after in text)


def test_a_large_batch_within_the_limit_is_taken(collector: Collector) -> None:
    mark = f"mark-{secrets.token_hex(4)}"
    traces = attributes({"mark": mark, "exception.stacktrace": "a" * 12_000})
    collector.send_spans([span(attributes=traces) for _ in range(512)])
    collector.wait_for("traces", lambda text: text.count(mark) == 512)
