"""`Telemetry` uses the providers that an application has set: nothing is exported twice."""

import subprocess
import sys

import pytest

BEFORE = """
import logging
import os

os.environ |= {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}

from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from faststream_otel import Telemetry

logging.basicConfig(level="INFO", format="%(message)s")
spans, logs, reader = InMemorySpanExporter(), InMemoryLogRecordExporter(), InMemoryMetricReader()
resource = Resource({"service.name": "theirs", "team": "a"})
tracers, loggers = TracerProvider(resource=resource), LoggerProvider(resource=resource)
meters = MeterProvider([reader], resource=resource)
"""
TAKEN = {
    "all three": """
tracers.add_span_processor(SimpleSpanProcessor(spans))
loggers.add_log_record_processor(SimpleLogRecordProcessor(logs))
trace.set_tracer_provider(tracers)
metrics.set_meter_provider(meters)
_logs.set_logger_provider(loggers)
telemetry = Telemetry("ours", package="faststream")
assert telemetry.tracer_provider is trace.get_tracer_provider() is tracers
assert telemetry.meter_provider is metrics.get_meter_provider() is meters
assert telemetry.logger_provider is _logs.get_logger_provider() is loggers
with tracers.get_tracer("t").start_as_current_span("once"):
    logging.getLogger("t").warning("once")
(span,) = spans.get_finished_spans()
(record,) = [one.log_record for one in logs.get_finished_logs() if one.log_record.body == "once"]
assert record.trace_id == span.context.trace_id
""",
    "the resource is theirs, completed by ours": """
tracers.add_span_processor(SimpleSpanProcessor(spans))
trace.set_tracer_provider(tracers)
telemetry = Telemetry("ours", package="faststream")
tracers.get_tracer("t").start_span("x").end()
of_span = spans.get_finished_spans()[0].resource.attributes
assert (of_span["service.name"], of_span["team"]) == ("theirs", "a")
assert of_span["service.namespace"] == "faststream"
assert telemetry.logger_provider.resource.attributes == of_span
""",
    "a service without a name gets ours": """
unnamed = TracerProvider()
trace.set_tracer_provider(unnamed)
assert Telemetry("ours").resource.attributes["service.name"] == "ours"
""",
    "one alone": """
tracers.add_span_processor(SimpleSpanProcessor(spans))
trace.set_tracer_provider(tracers)
telemetry = Telemetry("ours")
assert telemetry.tracer_provider is tracers
assert telemetry.meter_provider is metrics.get_meter_provider() is not meters
""",
    "by every telemetry": """
tracers.add_span_processor(SimpleSpanProcessor(spans))
loggers.add_log_record_processor(SimpleLogRecordProcessor(logs))
trace.set_tracer_provider(tracers)
metrics.set_meter_provider(meters)
_logs.set_logger_provider(loggers)
assert Telemetry("one").tracer_provider is Telemetry("two").tracer_provider is tracers
logging.getLogger("t").warning("once")
assert [one.log_record.body for one in logs.get_finished_logs()].count("once") == 1
""",
    "the end flushes and leaves it to its owner to shut down": """
tracers.add_span_processor(BatchSpanProcessor(spans, schedule_delay_millis=60_000))
trace.set_tracer_provider(tracers)
telemetry = Telemetry("ours")
tracers.get_tracer("t").start_span("before").end()
telemetry.close()
assert [span.name for span in spans.get_finished_spans()] == ["before"]
tracers.get_tracer("t").start_span("after").end()
tracers.shutdown()
assert len(spans.get_finished_spans()) == 2
""",
    "where it exports nothing it gets the exporters of the variables": """
os.environ["OTEL_TRACES_EXPORTER"] = os.environ["OTEL_LOGS_EXPORTER"] = "console"
trace.set_tracer_provider(tracers)
_logs.set_logger_provider(loggers)
telemetry = Telemetry("ours")
tracers.get_tracer("t").start_span("by the console").end()
logging.getLogger("t").warning("by the console too")
telemetry.close()
""",
}
OWN = {
    "nothing of it is wanted": """
trace.set_tracer_provider(tracers)
telemetry = Telemetry("ours", make_global=False)
assert telemetry.tracer_provider is not tracers
assert telemetry.resource.attributes["service.name"] == "ours"
assert tracers.resource.attributes["service.name"] == "theirs"
""",
    "an exporter is given": """
trace.set_tracer_provider(tracers)
telemetry = Telemetry("ours", span_exporter=spans)
assert telemetry.tracer_provider is not tracers
telemetry.tracer_provider.get_tracer("t").start_span("x").end()
telemetry.close()
assert len(spans.get_finished_spans()) == 1
""",
}

MIDDLEWARE = """
import asyncio

from faststream.kafka import KafkaBroker, TestKafkaBroker
from faststream_otel.kafka import KafkaTelemetryMiddleware

tracers.add_span_processor(SimpleSpanProcessor(spans))
{before}
broker = KafkaBroker(middlewares=[KafkaTelemetryMiddleware()], logger=None)
{after}

@broker.subscriber("first")
async def handles(body: str) -> None: ...

async def main():
    async with TestKafkaBroker(broker):
        await broker.publish("x", "first")

asyncio.run(main())
names = [span.name for span in spans.get_finished_spans()]
assert sorted(names) == ["process first", "send first"], names
scopes = reader.get_metrics_data().resource_metrics[0].scope_metrics
names = [metric.name for scope in scopes for metric in scope.metrics]
assert "messaging.process.duration" in names, names
"""
SET = "trace.set_tracer_provider(tracers); metrics.set_meter_provider(meters)"


def run(program: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", BEFORE + program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("case", TAKEN)
def test_an_existing_provider_is_used(case: str) -> None:
    done = run(TAKEN[case])
    assert "created already" not in done.stderr
    assert done.stderr.count("Using the providers that opentelemetry-instrument") == (
        2 if case == "by every telemetry" else 1
    )
    for text in ("by the console", "by the console too"):
        assert done.stdout.count(f'"{text}"') == (case.startswith("where it exports nothing"))


@pytest.mark.parametrize("case", OWN)
def test_an_existing_provider_is_not_changed(case: str) -> None:
    assert "Using the providers" not in run(OWN[case]).stderr


@pytest.mark.parametrize(("before", "after"), [(SET, ""), ("", SET)], ids=["before", "after"])
def test_the_middleware_by_itself_uses_the_global_providers(before: str, after: str) -> None:
    run(MIDDLEWARE.format(before=before, after=after))
