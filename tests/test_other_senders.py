"""Whatever speaks OTLP gets its panels, however it is set up; and it harms no other sender.

The Collector, Prometheus and Loki are real, and configured as they are baked.
"""

import secrets
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from backends import loki, prometheus
from collector import Collector, attributes, running
from e2e.apis import Loki, Prometheus
from e2e.poll import poll_until
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import (
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
)
from opentelemetry.sdk.resources import Resource

CUMULATIVE, DELTA = AggregationTemporality.CUMULATIVE, AggregationTemporality.DELTA
EXPLICIT, EXPONENTIAL = ExplicitBucketHistogramAggregation, ExponentialBucketHistogramAggregation


@dataclass(frozen=True)
class Stack:
    collector: Collector
    prometheus: Prometheus
    loki: Loki

    def value(self, query: str, expected: float) -> None:
        """Wait until Prometheus answers this query with one such value."""

        def answer() -> bool:
            return self.prometheus.values(query) == [expected]

        poll_until(answer, f"{query} is {expected}", 30)

    def texts(self, service: str) -> list[str]:
        """The texts of a service's log records of the last two hours."""
        streams = self.loki.search(f'{{service_name="{service}"}}', 7200)
        return [text for stream in streams for _, text in stream["values"]]

    def lost(self, counter: str) -> float:
        """The sum of a counter of the Collector's, or of Loki's."""
        url = self.loki.url + "/metrics" if counter.startswith("loki") else self.collector.metrics
        with urllib.request.urlopen(url, timeout=5) as response:
            lines = response.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(counter))


@pytest.fixture(scope="module")
def stack(default_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    with (
        prometheus(default_project, folder) as metrics,
        loki(default_project, folder) as logs,
        running(
            default_project,
            folder,
            ends={"metrics": "prometheus_remote_write", "logs": "otlp_http/loki"},
            added={
                "exporters": {
                    "prometheus_remote_write": {"endpoint": f"{metrics.url}/api/v1/write"},
                    "otlp_http/loki": {"endpoint": f"{logs.url}/otlp"},
                }
            },
        ) as collector,
    ):
        yield Stack(collector, metrics, logs)


@pytest.mark.parametrize("aggregation", [EXPLICIT, EXPONENTIAL])
@pytest.mark.parametrize("temporality", [CUMULATIVE, DELTA])
def test_metrics_of_any_kind_are_kept(
    temporality: AggregationTemporality, aggregation: type[Any], stack: Stack
) -> None:
    """Each is sent twice, as its SDK does it."""
    service = f"service-{secrets.token_hex(4)}"
    reader = PeriodicExportingMetricReader(
        OTLPMetricExporter(
            f"{stack.collector.url}/v1/metrics",
            preferred_temporality={Counter: temporality, Histogram: temporality},
            preferred_aggregation={Histogram: aggregation()},
        ),
        export_interval_millis=float("inf"),
    )
    provider = MeterProvider([reader], Resource({"service.name": service}), shutdown_on_exit=False)
    meter = provider.get_meter("tests")
    counter, histogram = meter.create_counter("jobs"), meter.create_histogram("wait", "s")
    failed = stack.lost("otelcol_exporter_send_failed_metric_points")
    for _ in range(2):
        counter.add(3)
        for seconds in (0.1, 1, 10):
            histogram.record(seconds)
        assert provider.force_flush()
        time.sleep(0.01)  # a point of the same millisecond would take the place of the first
    labels = f'{{service_name="{service}"}}'
    stack.value(f"jobs_total{labels}", 6)
    if aggregation is EXPLICIT:
        stack.value(f"wait_seconds_count{labels}", 6)
    else:
        stack.value(f"histogram_count(wait_seconds{labels})", 6)
    provider.shutdown()
    assert stack.lost("otelcol_exporter_prometheusremotewrite_failed_translations") == 0
    assert stack.lost("otelcol_exporter_send_failed_metric_points") == failed


def gauge(name: str, **point: Any) -> dict[str, Any]:
    """A metric with one point, which is of now if it is not told."""
    point = {"timeUnixNano": str(time.time_ns()), "asInt": "1", **point}
    return {"name": name, "gauge": {"dataPoints": [point]}}


def send(stack: Stack, *metrics: dict[str, Any]) -> None:
    scope = {"scopeMetrics": [{"metrics": metrics}]}
    stack.collector.send("metrics", {"resourceMetrics": [scope]})


def test_a_metric_that_cannot_be_translated_is_counted(stack: Stack) -> None:
    """It is dropped though its sender hears that all is well; what came with it is kept."""
    name = f"metric_{secrets.token_hex(4)}"
    counter = "otelcol_exporter_prometheusremotewrite_failed_translations"
    before = stack.lost(counter)
    point = {"timeUnixNano": str(time.time_ns()), "asInt": "1"}
    without = {"name": f"{name}_sum", "sum": {"dataPoints": [point], "isMonotonic": True}}
    send(stack, without, gauge(name))
    stack.value(name, 1)
    assert stack.lost(counter) == before + 1


def test_one_bad_sender_does_not_delay_others(stack: Stack) -> None:
    """Samples that are days old are refused, and not tried again for five seconds each."""
    old = str(time.time_ns() - 5 * 24 * 3600 * 10**9)
    for number in range(50):
        send(stack, gauge("much_too_old", timeUnixNano=old, asInt=str(number)))
    name = f"metric_{secrets.token_hex(4)}"
    send(stack, gauge(name))
    stack.value(name, 1)


def test_deltas_out_of_order_are_counted(stack: Stack) -> None:
    """They can't be added up any more."""
    name = f"metric_{secrets.token_hex(4)}"
    counter = 'otelcol_deltatocumulative_datapoints{error="'
    before = stack.lost(counter)
    for seconds in (0, 60):
        end = time.time_ns() - seconds * 10**9
        point = {"startTimeUnixNano": str(end - 10**9), "timeUnixNano": str(end), "asInt": "1"}
        delta = {"dataPoints": [point], "isMonotonic": True, "aggregationTemporality": 1}
        send(stack, {"name": name, "sum": delta})
    stack.value(f"{name}_total", 1)
    assert stack.lost(counter) == before + 1


def test_attributes_that_collide_as_labels_are_joined(stack: Stack) -> None:
    name = f"metric_{secrets.token_hex(4)}"
    send(stack, gauge(name, attributes=attributes({"a.b": "one", "a_b": "two"})))
    stack.value(f'{name}{{a_b="one;two"}}', 1)


def record(text: str, nanoseconds: int | None = None, **fields: Any) -> dict[str, Any]:
    time_ns = nanoseconds or time.time_ns()
    return {"timeUnixNano": str(time_ns), "body": {"stringValue": text}, **fields}


def log(stack: Stack, service: str, *records: dict[str, Any]) -> None:
    resource = {"attributes": attributes({"service.name": service})}
    logs = {"scopeLogs": [{"logRecords": records}], "resource": resource}
    stack.collector.send("logs", {"resourceLogs": [logs]})


def kept(stack: Stack, service: str, wanted: set[str]) -> None:
    """Wait until Loki has a record with each of these texts, and no other."""
    poll_until(lambda: set(stack.texts(service)) == wanted, f"{len(wanted)} records", 30)


LARGE: dict[str, dict[str, Any]] = {
    "200 attributes": {"attributes": attributes({f"key.{n}": "value" for n in range(200)})},
    "attributes of 160 KB": {
        "attributes": attributes({f"key.{n}": "x" * 16000 for n in range(10)})
    },
    "a body of 400 KB": {
        "body": {
            "kvlistValue": {
                "values": attributes({f"key.{n}": "x" * 20000 for n in range(20)}),
            }
        }
    },
}


@pytest.mark.parametrize("fields", LARGE.values(), ids=LARGE)
def test_a_large_log_record_is_kept(fields: dict[str, Any], stack: Stack) -> None:
    service = f"service-{secrets.token_hex(4)}"
    log(stack, service, record("large", **fields), record("small"))
    poll_until(lambda: len(stack.texts(service)) == 2, "two records", 30)


def test_of_a_record_beyond_the_limits_only_it_is_lost(stack: Stack) -> None:
    """Loki counts it. The Collector counts all that was sent with it."""
    service = f"service-{secrets.token_hex(4)}"
    discarded = stack.lost("loki_discarded_samples_total")
    many = attributes({f"key.{number}": "value" for number in range(600)})
    others = {f"record {number}" for number in range(50)}
    log(stack, service, record("too many", attributes=many), *(record(text) for text in others))
    kept(stack, service, others)
    assert stack.lost("loki_discarded_samples_total") == discarded + 1
    assert stack.lost("otelcol_exporter_send_failed_log_records") >= len(others)


@pytest.mark.parametrize("minutes", [90])
def test_what_is_late_is_kept(minutes: int, stack: Stack) -> None:
    """Also where something newer of the same series or stream is there already."""
    name, late = f"metric_{secrets.token_hex(4)}", time.time_ns() - minutes * 60 * 10**9
    log(stack, name, record("new"))
    send(stack, gauge(name, asInt="2"))
    kept(stack, name, {"new"})
    stack.value(name, 2)
    log(stack, name, record("late", late))
    send(stack, gauge(name, asInt="1", timeUnixNano=str(late)))
    kept(stack, name, {"new", "late"})
    stack.value(f"{name} offset {minutes - 1}m", 1)
