"""Personal data and credentials that got into telemetry by mistake are in none of the stores."""

import json
import secrets
import time
import urllib.request
from typing import Any

import pytest
from personal import BY_ITS_KEY, PASSWORD, PERSONAL

from .apis import Loki, Prometheus
from .poll import poll_until
from .stack import Stack
from .stores import TraceStore

SERVICE = "careless"

# What must be found in no store. The password is also what stands below a key that gives it away.
CLEAR = [*PERSONAL, PASSWORD]


def send(stack: Stack, signal: str, body: dict[str, Any]) -> None:
    request = urllib.request.Request(
        f"{stack.url('OTLP_HTTP_PORT')}/v1/{signal}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    urllib.request.urlopen(request, timeout=10).close()


def attributes(mark: str) -> list[dict[str, Any]]:
    """All secrets, by innocent keys, and one by all the keys that are not."""
    values = {f"note.{number}": f"of {secret}, who" for number, secret in enumerate(PERSONAL)}
    values |= dict.fromkeys(BY_ITS_KEY, PASSWORD)
    return [
        {"key": key, "value": {"stringValue": value}}
        for key, value in (values | {"mark": mark}).items()
    ]


def resource(mark: str) -> dict[str, Any]:
    name = {"key": "service.name", "value": {"stringValue": SERVICE}}
    return {"attributes": [name, *attributes(mark)]}


@pytest.fixture(scope="module")
def mark(stack: Stack) -> str:
    """Also the trace's id: a span, log records and a metric full of secrets were sent."""
    mark = secrets.token_hex(16)
    now = time.time_ns()
    everything = " ".join(PERSONAL)
    span = {
        "traceId": mark,
        "spanId": secrets.token_hex(8),
        "name": f"tell {everything}",
        "kind": 1,
        "startTimeUnixNano": str(now),
        "endTimeUnixNano": str(now + 1_000_000),
        "attributes": attributes(mark),
        "events": [{"timeUnixNano": str(now), "name": everything, "attributes": attributes(mark)}],
        "status": {"code": 2, "message": everything},
    }
    scopes = [{"scope": {"name": "tests"}, "spans": [span]}]
    send(stack, "traces", {"resourceSpans": [{"resource": resource(mark), "scopeSpans": scopes}]})

    records = [
        {
            "timeUnixNano": str(now + number),  # Loki keeps one of two that are the same
            "traceId": mark,
            "body": {"stringValue": f"told {mark} of {secret}"},
            "attributes": attributes(mark),
        }
        for number, secret in enumerate(PERSONAL)
    ]
    logs = [{"resource": resource(mark), "scopeLogs": [{"logRecords": records}]}]
    send(stack, "logs", {"resourceLogs": logs})

    point = {"timeUnixNano": str(now), "asInt": "1", "attributes": attributes(mark)}
    metrics = [{"metrics": [{"name": "careless", "gauge": {"dataPoints": [point]}}]}]
    send(
        stack,
        "metrics",
        {"resourceMetrics": [{"resource": resource(mark), "scopeMetrics": metrics}]},
    )
    return mark


def found_in(text: str) -> list[str]:
    """The secrets that stand in a store's answer, whichever way its quotes are written."""
    plain = text.replace("\\", "")
    return [secret for secret in CLEAR if secret.replace("\\", "") in plain]


def test_traces_hold_none(stack: Stack, mark: str, store: TraceStore) -> None:
    if stack.stand_in:
        pytest.skip("the sink that stands in for Tempo tells ids alone")
    text = poll_until(lambda: store.text_of(mark) if store.trace(mark) else "", "the trace")
    assert mark in text
    assert text.count("****") > 4 * len(PERSONAL)  # attributes, event, resource, texts
    assert found_in(text) == []
    assert found_in(store.values_of("note.0")) == []


def test_logs_hold_none(mark: str, loki: Loki) -> None:
    streams = poll_until(
        lambda: loki.search(f'{{service_name="{SERVICE}"}} |= "{mark}"', 600), "the log records"
    )
    texts = [text for stream in streams for _, text in stream["values"]]
    assert len(texts) == len(PERSONAL)
    assert all("****" in text for text in texts)
    assert found_in(json.dumps(streams, ensure_ascii=False)) == []


def test_metrics_hold_none(mark: str, prometheus: Prometheus) -> None:
    (labels,) = poll_until(
        lambda: prometheus.series(f'careless{{mark="{mark}"}}'), "the careless metric"
    )
    assert labels["note_0"] == "of ****, who"
    spans = poll_until(
        lambda: prometheus.series(f'traces_span_metrics_calls_total{{service_name="{SERVICE}"}}'),
        "the metrics of the careless span",
    )
    assert "****" in spans[0]["span_name"]
    assert found_in(json.dumps([labels, *spans], ensure_ascii=False)) == []
