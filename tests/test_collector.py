"""The running Collector: what it masks, samples and counts."""

import json
import re
import secrets
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from collector import Collector, attributes, running, span
from faststream_otel.messages.retry import RetryPolicy
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span
from personal import BY_ITS_KEY, INNOCENT, NO_CARD, PASSWORD, PERSONAL
from ports import free_ports


@pytest.fixture(scope="module")
def collector(
    default_project: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Collector]:
    with running(default_project, tmp_path_factory.mktemp("collector")) as collector:
        yield collector


def listed(key: str, value: str) -> dict[str, Any]:
    return {"key": key, "value": {"arrayValue": {"values": [{"stringValue": value}]}}}


def lines_with(mark: str, collector: Collector, signal: str) -> list[str]:
    """The documents that have this text in them, of which there is one at least."""
    written = collector.wait_for(signal, lambda text: mark in text)
    return [line for line in written.splitlines() if mark in line]


@pytest.mark.parametrize("secret", PERSONAL)
def test_personal_data_is_masked_wherever_it_stands(collector: Collector, secret: str) -> None:
    text, mark = f"of {secret}, who", f"mark-{secrets.token_hex(4)}"
    now = str(time.time_ns())
    collector.send_spans(
        [
            span(
                name=f"process {text}",
                attributes=[*attributes({"note": text, "mark": mark}), listed("notes", text)],
                events=[
                    {
                        "timeUnixNano": now,
                        "name": f"failed {text}",
                        "attributes": attributes({"exception.message": text}),
                    }
                ],
                status={"code": 2, "message": f"LookupError: {text}"},
            )
        ],
        owner=text,
        **{"service.name": mark},
    )
    record = {
        "timeUnixNano": now,
        "body": {"stringValue": f"no order {text}"},
        "attributes": attributes({"customer": text, "mark": mark}),
    }
    collector.send("logs", {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]})
    point = {"timeUnixNano": now, "asInt": "1", "attributes": attributes({"note": text})}
    gauge = {"name": f"gauge-{mark}", "gauge": {"dataPoints": [point]}}
    collector.send("metrics", {"resourceMetrics": [{"scopeMetrics": [{"metrics": [gauge]}]}]})

    for signal, wanted in [
        ("traces", mark),
        ("logs", mark),
        ("metrics", f"gauge-{mark}"),
        ("metrics", f'"{mark}"'),  # what the Collector makes of the span
    ]:
        for line in lines_with(wanted, collector, signal):
            assert secret not in line
            assert json.dumps(secret)[1:-1] not in line  # its quotes, as a JSON document has them
            assert PASSWORD not in line
            assert "****" in line
    (traces,) = lines_with(mark, collector, "traces")
    for kept in ("LookupError: of ", '"process of ', '"failed of '):
        assert kept in traces
    for lent in ("status.message", "span.name", "event.name"):
        assert f'"{lent}"' not in traces


@pytest.mark.parametrize("key", BY_ITS_KEY)
def test_a_key_that_names_a_secret_is_enough(collector: Collector, key: str) -> None:
    mark = f"mark-{secrets.token_hex(4)}"
    collector.send_spans([span(attributes=attributes({key: PASSWORD, "mark": mark}))])
    (line,) = lines_with(mark, collector, "traces")
    assert PASSWORD not in line


def test_numbers_are_masked_too(collector: Collector) -> None:
    mark = f"mark-{secrets.token_hex(4)}"
    card = {"key": "number", "value": {"intValue": "4111111111111111"}}
    count = {"key": "count", "value": {"intValue": "4111"}}
    collector.send_spans([span(attributes=[*attributes({"mark": mark}), card, count])])
    (line,) = lines_with(mark, collector, "traces")
    assert "4111111111111111" not in line
    assert '"intValue":"4111"' in line  # a number that may stay is one still


def kept_of(values: dict[str, str], collector: Collector) -> dict[str, str]:
    """Which attributes a span still has after it was sent with these."""
    mark = f"mark-{secrets.token_hex(4)}"
    collector.send_spans([span(attributes=attributes({**values, "mark": mark}))])
    (line,) = lines_with(mark, collector, "traces")
    (stored,) = json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"]
    return {one["key"]: one["value"].get("stringValue") for one in stored["attributes"]}


def test_what_is_not_personal_stays(collector: Collector) -> None:
    kept = kept_of(INNOCENT, collector)
    assert {key: kept[key] for key in INNOCENT} == INNOCENT
    assert "redaction.masked.count" not in kept


def test_a_fraction_is_no_card(collector: Collector) -> None:
    mark = f"mark-{secrets.token_hex(4)}"
    ratio = {"key": "ratio", "value": {"doubleValue": 0.4111111111111111}}
    collector.send_spans([span(attributes=[*attributes({"mark": mark}), ratio])])
    (line,) = lines_with(mark, collector, "traces")
    assert '"doubleValue":0.4111111111111111' in line


def test_a_project_has_patterns_of_its_own(default_project: Path, tmp_path: Path) -> None:
    """And keys that are never masked, which is for numbers that look like cards."""
    values = {
        "employee": "of EMP-123456, who", "badge": "yellow", "order.number": NO_CARD,
        "other.number": NO_CARD, "note": "ada@example.org",
    }  # fmt: skip
    with running(
        default_project,
        tmp_path,
        REDACTION_VALUES=r"\bEMP-\d{6}\b|\bBADGE-\d+\b",
        REDACTION_KEYS=r"(^|\.)badge$",
        REDACTION_IGNORED_KEYS="^order[.]number$",
    ) as collector:
        kept = kept_of(values, collector)
    assert {key: kept[key] for key in values} == {
        "employee": "of ****, who", "badge": "****", "order.number": NO_CARD,
        "other.number": "****", "note": "****",
    }  # fmt: skip


def test_redaction_can_be_switched_off(default_project: Path, tmp_path: Path) -> None:
    values = {f"note.{number}": secret for number, secret in enumerate(PERSONAL)}
    values |= dict.fromkeys(BY_ITS_KEY, PASSWORD)
    with running(default_project, tmp_path, redaction="off") as collector:
        kept = kept_of(values, collector)
    assert {key: kept[key] for key in values} == values


@pytest.mark.parametrize("debug", ["on", "off"])
def test_the_log_shows_what_arrives_if_it_is_asked_for(
    debug: str, default_project: Path, tmp_path: Path
) -> None:
    mark = f"mark-{secrets.token_hex(4)}"
    noted = attributes({"mark": mark, "password": PASSWORD})
    now = str(time.time_ns())
    with running(default_project, tmp_path, debug=debug) as collector:
        collector.send_spans([span(name=f"span of {mark}", attributes=noted)], owner=mark)
        point = {"timeUnixNano": now, "asInt": "1", "attributes": noted}
        gauge = {"name": f"metric of {mark}", "gauge": {"dataPoints": [point]}}
        collector.send("metrics", {"resourceMetrics": [{"scopeMetrics": [{"metrics": [gauge]}]}]})
        body = {"stringValue": f"record of {mark}"}
        record = {"timeUnixNano": now, "body": body, "attributes": noted}
        collector.send("logs", {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]})
        if debug == "on":
            collector.wait_for("output", lambda said: said.count(f"of {mark}") == 3)
        for signal in ("traces", "metrics", "logs"):
            lines_with(mark, collector, signal)  # the stores get it all the same
    said = (tmp_path / "output").read_text()
    assert (mark in said) == (debug == "on")
    assert PASSWORD not in said


def test_a_channel_has_its_name_where_the_sender_gives_no_template(collector: Collector) -> None:
    service = f"service-{secrets.token_hex(4)}"
    name, template = "messaging.destination.name", "messaging.destination.template"
    sent = [
        {name: "orders", "mark": "plain"},
        {name: "orders:payments", template: "orders", "mark": "both"},
        {"mark": "neither"},
    ]
    collector.send_spans(
        [span(attributes=attributes(one)) for one in sent], **{"service.name": service}
    )
    (line,) = lines_with(service, collector, "traces")
    stored = json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"]
    values = [
        {one["key"]: one["value"]["stringValue"] for one in each["attributes"]} for each in stored
    ]
    assert {one["mark"]: one.get(template) for one in values} == {
        "plain": "orders", "both": "orders", "neither": None,
    }  # fmt: skip

    def counted(text: str) -> bool:
        points = [
            {one["key"]: one["value"].get("stringValue") for one in point["attributes"]}
            for line in text.splitlines()
            for resource in json.loads(line)["resourceMetrics"]
            for scope in resource["scopeMetrics"]
            for metric in scope["metrics"]
            if metric["name"] == "traces.span.metrics.calls"
            for point in metric["sum"]["dataPoints"]
            if point["asInt"] == "2"
        ]
        return any(point["service.name"] == service for point in points) and all(
            name not in point and point[template] == "orders"
            for point in points
            if point["service.name"] == service
        )

    collector.wait_for("metrics", counted)


def test_long_texts_are_cut_off(collector: Collector) -> None:
    mark = f"mark-{secrets.token_hex(4)}"
    text = "ä" * 40_000  # two bytes each, so that a cut may come in the middle of one
    now = str(time.time_ns())
    event = {"timeUnixNano": now, "name": f" {text}", "attributes": attributes({"stack": text})}
    collector.send_spans(
        [
            span(
                name=f" {text}",
                attributes=attributes({"mark": mark, "note": f" {text}"}),
                events=[event],
                status={"code": 2, "message": f" {text}"},
            )
        ]
    )
    record = {
        "timeUnixNano": now,
        "body": {"stringValue": f" {text}"},
        "attributes": attributes({"mark": mark, "note": text}),
    }
    collector.send("logs", {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]})

    (line,) = lines_with(mark, collector, "traces")
    (stored,) = json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"]
    (happened,) = stored["events"]
    (line,) = lines_with(mark, collector, "logs")
    (logged,) = json.loads(line)["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    sizes = {
        "name": (stored["name"], 4096),
        "status": (stored["status"]["message"], 4096),
        "attribute": (value_of(stored, "note"), 4096),
        "event": (happened["name"], 16384),
        "attribute of an event": (value_of(happened, "stack"), 16384),
        "attribute of a log record": (value_of(logged, "note"), 16384),
        "log record": (logged["body"]["stringValue"], 65536),
    }
    for what, (kept, limit) in sizes.items():
        assert limit - 2 < len(kept.encode()) <= limit, what
        assert set(kept) <= {" ", "ä"}, what  # whole characters only


def value_of(record: dict[str, Any], key: str) -> str:
    (value,) = (one["value"]["stringValue"] for one in record["attributes"] if one["key"] == key)
    return str(value)


def test_tail_sampling_keeps_what_matters_and_metrics_count_all(
    default_project: Path, tmp_path: Path
) -> None:
    failed = [span(status={"code": 2}) for _ in range(20)]
    slow = [span(milliseconds=1500) for _ in range(20)]
    others = [span() for _ in range(1000)]
    ids = [{one["traceId"] for one in group} for group in (failed, slow, others)]
    with running(
        default_project,
        tmp_path,
        "tail",
        TAIL_SAMPLING_WAIT="1s",
        TAIL_SAMPLING_SLOW_MS="1000",
        TAIL_SAMPLING_PERCENTAGE="10",
    ) as collector:
        collector.send_spans([*failed, *slow, *others], **{"service.name": "sampled"})
        written = collector.wait_for(
            "traces", lambda text: all(one in text for one in ids[0] | ids[1])
        )
        time.sleep(2)  # whatever else was chosen
        written = collector.received("traces")
        kept = sum(one in written for one in ids[2])
        assert 40 <= kept <= 180  # a tenth; these bounds are missed once in 10^9 runs
        metrics = collector.wait_for("metrics", lambda text: "traces.span.metrics.calls" in text)
    assert calls(metrics) == len(failed) + len(slow) + len(others)


def test_the_service_graph_names_what_it_cannot_pair(default_project: Path, tmp_path: Path) -> None:
    """A batch, which is in a trace of its own, by its channel; a call by the address."""
    channel = attributes({"messaging.destination.template": "shipments"})
    sends = span(kind=4, attributes=channel)
    handles = span(
        kind=5, attributes=channel, links=[{"traceId": sends["traceId"], "spanId": sends["spanId"]}]
    )
    asks = span(kind=3, attributes=attributes({"server.address": "api.example.org"}))
    quickly = {"store": {"ttl": "1s"}, "store_expiration_loop": "1s"}
    with running(
        default_project, tmp_path, added={"connectors": {"service_graph": quickly}}
    ) as collector:
        collector.send_spans([sends, asks], **{"service.name": "shipping"})
        collector.send_spans([handles, span(kind=2)], **{"service.name": "notifications"})
        expected = {
            ("shipping", "shipments"), ("shipments", "notifications"),
            ("shipping", "api.example.org"), ("user", "notifications"),
        }  # fmt: skip
        collector.wait_for("metrics", lambda text: edges(text) == expected)


def edges(written: str) -> set[tuple[str, str]]:
    """The pairs of client and server that the service graph has."""
    points = (
        {one["key"]: one["value"].get("stringValue", "") for one in point["attributes"]}
        for line in written.splitlines()
        for resource in json.loads(line)["resourceMetrics"]
        for scope in resource["scopeMetrics"]
        for metric in scope["metrics"]
        if metric["name"] == "traces_service_graph_request_total"
        for point in metric["sum"]["dataPoints"]
    )
    return {(point["client"], point["server"]) for point in points}


def test_tail_sampling_waits_longer_than_all_attempts_of_a_handler(default_project: Path) -> None:
    """And for the service to export the span: the trace of a dead letter is kept."""
    config = default_project / "observability/otel-collector/config/sampling/tail.yaml"
    (wait,) = re.findall(r"TAIL_SAMPLING_WAIT:-(\d+)s", config.read_text("utf-8"))
    export_seconds = 5
    assert float(wait) > RetryPolicy().longest(messages=1) + export_seconds
    for example in (".env.example", "observability/.env.example"):
        assert f"#TAIL_SAMPLING_WAIT={wait}s\n" in (default_project / example).read_text("utf-8")


def test_tail_sampling_keeps_traces_whose_error_comes_late(
    default_project: Path, tmp_path: Path
) -> None:
    first = [span() for _ in range(20)]
    failed = [span(traceId=one["traceId"], status={"code": 2}) for one in first]
    with running(default_project, tmp_path, "tail", TAIL_SAMPLING_WAIT="4s") as collector:
        collector.send_spans(first, **{"service.name": "orders"})
        time.sleep(2)
        collector.send_spans(failed, **{"service.name": "payments"})
        collector.wait_for(
            "traces", lambda text: all(one["spanId"] in text for one in [*first, *failed])
        )


def test_more_traces_than_tail_sampling_holds_wait_for_their_turn(
    default_project: Path, tmp_path: Path
) -> None:
    """Otherwise the oldest ones go before anything is decided, those with errors among them."""
    failed = [span(status={"code": 2}) for _ in range(40)]
    with running(
        default_project,
        tmp_path,
        "tail",
        added={"processors": {"tail_sampling": {"num_traces": 10}}},
        TAIL_SAMPLING_WAIT="1s",
    ) as collector:
        collector.send_spans(failed, **{"service.name": "sampled"})
        collector.wait_for("traces", lambda text: all(one["traceId"] in text for one in failed))


class _Store(TraceServiceServicer):
    def __init__(self) -> None:
        self.spans: set[bytes] = set()

    def Export(  # noqa: N802 (gRPC's name)
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans.update(one.span_id for one in scope.spans)
        return ExportTraceServiceResponse()


def test_spans_with_many_links_fit_the_message_limit_of_grpc(
    default_project: Path, tmp_path: Path
) -> None:
    """A message of more than 4 MiB is refused for good, with every span in it."""
    links = [Span.Link(trace_id=secrets.token_bytes(16), span_id=b"1" * 8) for _ in range(200)]
    spans = [
        Span(trace_id=b"1" * 16, span_id=bytes((n // 256, n % 256, *b"linked")), links=links)
        for n in range(2000)
    ]  # 13 MB
    (port,) = free_ports(1)
    store = _Store()
    server = grpc.server(ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(store, server)  # type: ignore[no-untyped-call]
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        with running(
            default_project,
            tmp_path,
            ends={"traces": "otlp_grpc/tempo"},
            added={"exporters": {"otlp_grpc/tempo": {"endpoint": f"127.0.0.1:{port}"}}},
        ) as collector:
            for first in range(0, len(spans), 500):
                scope = ScopeSpans(spans=spans[first : first + 500])
                request = ExportTraceServiceRequest(
                    resource_spans=[ResourceSpans(scope_spans=[scope])]
                )
                collector.post("traces", request.SerializeToString(), "application/x-protobuf")
            deadline = time.monotonic() + 30
            while len(store.spans) < len(spans) and time.monotonic() < deadline:
                time.sleep(0.1)
    finally:
        server.stop(None)
    said = (tmp_path / "output").read_text()
    assert store.spans == {one.span_id for one in spans}, said[-3000:]


def calls(written: str) -> int:
    """How many spans the newest span metrics count."""
    newest = [
        metric
        for line in written.splitlines()
        for resource in json.loads(line)["resourceMetrics"]
        for scope in resource["scopeMetrics"]
        for metric in scope["metrics"]
        if metric["name"] == "traces.span.metrics.calls"
    ][-1]
    return sum(int(point["asInt"]) for point in newest["sum"]["dataPoints"])


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "its first pages overwritten": lambda data: secrets.token_bytes(16384) + data[16384:],
    "cut off in the middle": lambda data: data[: len(data) // 2],
    "cut off at its beginning": lambda data: data[:1000],
    "nothing in it": lambda data: b"\0" * len(data),
    "its middle overwritten": lambda data: (
        data[: len(data) // 2] + secrets.token_bytes(len(data) // 4) + data[len(data) * 3 // 4 :]
    ),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_queue_is_set_aside(
    damage: Callable[[bytes], bytes], default_project: Path, tmp_path: Path
) -> None:
    """The next start works, and says how many files there are. Damaged items alone are skipped."""
    (port,) = free_ports(1)
    ends = {"traces": "otlp_grpc/tempo"}
    tempo = {"exporters": {"otlp_grpc/tempo": {"endpoint": f"127.0.0.1:{port}"}}}
    with running(default_project, tmp_path, ends=ends, added=tempo) as collector:
        text = attributes({"text": secrets.token_hex(2000)})
        for _ in range(20):
            collector.send_spans([span(attributes=text) for _ in range(50)])
    (file,) = (tmp_path / "queue").glob("*tempo*")
    file.write_bytes(damage(file.read_bytes()))

    store, server = _Store(), grpc.server(ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(store, server)  # type: ignore[no-untyped-call]
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    sent = span()
    try:
        for starts in (1, 2):  # noqa: B007 (read below)
            with (
                suppress(AssertionError, OSError),
                running(default_project, tmp_path, ends=ends, added=tempo) as collector,
            ):
                collector.send_spans([sent])
                deadline = time.monotonic() + 20
                while bytes.fromhex(sent["spanId"]) not in store.spans:
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
                with urllib.request.urlopen(collector.metrics, timeout=5) as response:
                    own = response.read().decode()
                break
    finally:
        server.stop(None)
    said = (tmp_path / "output").read_text()
    assert bytes.fromhex(sent["spanId"]) in store.spans, said[-3000:]
    aside = list((tmp_path / "queue/damaged").rglob("*tempo*"))
    assert len(aside) == starts - 1
    assert f'queue_files_aside="{len(aside)}"' in own
