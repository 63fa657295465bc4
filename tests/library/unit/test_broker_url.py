"""BROKER_URL is parsed like the client does, or refused with the reason and a good value."""

import asyncio
import re
from unittest.mock import Mock

import pytest
from aiokafka.conn import collect_hosts
from faststream.kafka import TestKafkaBroker
from faststream_otel import Service, service
from faststream_otel.cli.__main__ import main
from faststream_otel.kafka import KafkaSettings
from faststream_otel.kafka.security import ADDRESSES, client_options, why_refused
from faststream_otel.settings import BadSetting
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

parse = ADDRESSES.parse
SECRET = "hush,quiet:silent/mute"

ACCEPTED = {
    "kafka": [("kafka", 9092)],
    "kafka:9093": [("kafka", 9093)],
    "10.0.0.7:19092": [("10.0.0.7", 19092)],
    "[::1]:9092": [("::1", 9092)],
    "[::1]": [("::1", 9092)],
    "[fe80::1%eth0]:9093": [("fe80::1%eth0", 9093)],
    "kafka:9092,": [("kafka", 9092)],
    "a:9092, b:9093 ,c": [("a", 9092), ("b", 9093), ("c", 9092)],
    " kafka:9092\n": [("kafka", 9092)],
    "a:9092,a:9092,a": [("a", 9092)],
    "kafka_1.my-domain.example.:9092": [("kafka_1.my-domain.example.", 9092)],
}

REFUSED = {
    "SASL_SSL://kafka:9093": "set BROKER_SECURITY_PROTOCOL=SASL_SSL and BROKER_URL=kafka:9093",
    "plaintext://kafka": "set BROKER_SECURITY_PROTOCOL=PLAINTEXT and BROKER_URL=kafka:9092",
    "SSL://a:1,SSL://b:2": "set BROKER_SECURITY_PROTOCOL=SSL and BROKER_URL=a:1,b:2",
    "kafka://kafka:9092": "set BROKER_URL=kafka:9092",
    "a:1,kafka://b:2": "set BROKER_URL=a:1,b:2",
    "kafka://": "set BROKER_URL=kafka:9092",
    "::1": "BROKER_URL=[::1]:9092",
    "::1:9092": "BROKER_URL=[::1]:9092",
    "kafka:9092:9093": "BROKER_URL=[::1]:9092",
    "[kafka]:9092": "BROKER_URL=[::1]:9092",
    "[::1": "BROKER_URL=[::1]:9092",
    "[::1]9092": "BROKER_URL=[::1]:9092",
    "kafka:": "port",
    "kafka:nine": "port",
    "kafka:9_092": "port",
    "kafka:٩٠٩٢": "port",
    "kafka:0": "port",
    "kafka:65536": "port",
    "kafka:-1": "port",
    ":9092": "no host",
    "9092": "host name",
    "10.0.0.777:9092": "host name",
    "kafka..example:9092": "host name",
    "a" * 64: "host name",
    "bücher.example:9092": "host name",
    "a:9092;b:9092": "commas",
    "a:9092 b:9092": "commas",
    "kafka:9092/orders": "path",
    "kafka/": "path",
    ",": "names no broker",
    " ": "names no broker",
}


@pytest.mark.parametrize(("text", "expected"), ACCEPTED.items())
def test_valid_urls_are_parsed_like_the_client_does(
    text: str, expected: list[tuple[str, int]]
) -> None:
    assert list(parse(text)) == expected
    given_to_client = client_options(KafkaSettings(broker_url=text))["bootstrap_servers"]
    assert [one[:2] for one in collect_hosts(given_to_client, randomize=False)] == expected


@pytest.mark.parametrize(("text", "said"), REFUSED.items())
def test_an_invalid_url_is_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(BadSetting, match=r"^BROKER_URL") as raised:
        parse(text)
    assert said in str(raised.value)
    assert "BROKER_URL=" in str(raised.value)


@pytest.mark.parametrize("scheme", ["", "kafka://", "SASL_SSL://"])
@pytest.mark.parametrize("servers", ["kafka:9092", "a:9092,b:9092"])
def test_a_password_is_refused_and_not_shown(scheme: str, servers: str) -> None:
    with pytest.raises(BadSetting, match=r"^BROKER_URL") as raised:
        parse(f"{scheme}orders:{SECRET}@{servers}")
    said = str(raised.value)
    assert "BROKER_USERNAME" in said
    assert "BROKER_PASSWORD" in said
    assert not [part for part in re.split("[,:/]", SECRET) if part in said]


def test_a_service_checks_the_url_before_it_makes_telemetry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise the process would wait for telemetry that nobody receives."""
    made = Mock()
    monkeypatch.setattr(service, "Telemetry", made)
    with pytest.raises(BadSetting, match=r"^BROKER_URL"):
        Service("refused", KafkaSettings(broker_url="kafka://kafka:9092"))
    made.assert_not_called()


PIECES = ["a", "kafka", "1", "9092", ":", "::", ",", ".", "[", "]", "/", "://", "@", " ", "-",
          "_", "%", "\0", "\n", "é", "SSL", "::1", "[::1]"]  # fmt: skip


@settings(deadline=None)
@given(st.text() | st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        servers = parse(text)
    except BadSetting:
        return
    written = [str(server) for server in servers]
    assert parse(",".join(written)) == servers
    assert [one[:2] for one in collect_hosts(written, randomize=False)] == list(servers)
    for server in servers:
        server.host.encode(
            "idna"
        )  # as the DNS lookup does; otherwise every attempt raises ValueError


@pytest.mark.parametrize("command", ["channels", "dead-letters", "lag"])
def test_the_command_line_reports_it_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.setenv("BROKER_URL", "SASL_SSL://kafka:9093")
    assert main(["--app", "order_flow", command]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("BROKER_URL")


def test_a_service_does_not_start_with_an_invalid_url() -> None:
    with pytest.raises(BadSetting, match=r"^BROKER_URL"):
        Service("misled", KafkaSettings(broker_url="kafka:nine"))


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        ("kafka", "kafka", 9092),
        ("[::1]:9093", "::1", 9093),
        ("a:9093, b:9094", "a", 9093),  # the first server stands for the cluster
    ],
)
async def test_spans_have_the_brokers_address(text: str, address: str, port: int) -> None:
    service = Service("placed", KafkaSettings(broker_url=text))
    exporter = InMemorySpanExporter()
    service.telemetry.tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))

    @service.subscriber("events")
    async def handle(body: str) -> None: ...

    async with TestKafkaBroker(service.broker.faststream) as connected:
        await connected.publish("event", "events")

    spans = {span.name: dict(span.attributes or {}) for span in exporter.get_finished_spans()}
    for name in ("send events", "process events"):
        assert spans[name]["server.address"] == address
        assert spans[name]["server.port"] == port


async def test_each_server_is_asked_why_it_refuses_the_client(unused_tcp_port: int) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    async with await asyncio.start_server(hang_up, "::1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        settings = KafkaSettings(broker_url=f"127.0.0.1:{unused_tcp_port}, [::1]:{port},")
        assert "closed the connection" in await why_refused(settings)
