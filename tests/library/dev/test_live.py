"""Each complete trace is shown once, with the traces that link to it beneath."""

import io

import pytest
from faststream_otel.dev import live, otlp
from faststream_otel.dev.live import LiveTraces
from faststream_otel.dev.otlp import Link, Span
from faststream_otel.dev.receiver import OtlpReceiver
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from rich.console import Console

from .spans import OTHER, TRACE, span

ROOT, CHILD = span("root", 1), span("child", 2, 1)
LINKED = span("batch", 3, trace_id=OTHER, links=(Link(TRACE, CHILD.span_id),))


class Screen:
    """What is shown of the spans that arrive."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, export_interval: float = 0.0) -> None:
        self._receiver = OtlpReceiver()
        self._file = io.StringIO()
        console = Console(file=self._file, width=80)
        self._traces = LiveTraces(self._receiver, console, export_interval)
        self._monkeypatch = monkeypatch

    def after(self, *spans: Span) -> str:
        """Let spans arrive; return what is shown then."""
        self._monkeypatch.setattr(otlp, "spans", lambda batches: list(spans))
        self._receiver.receive("traces", ExportTraceServiceRequest(), "grpc", ())
        before = self._file.tell()
        self._traces.show()
        return self._file.getvalue()[before:]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    monkeypatch.setattr(live, "QUIET_SECONDS", 0)
    return Screen(monkeypatch)


def test_a_trace_is_shown_once(screen: Screen) -> None:
    assert "child" in screen.after(ROOT, CHILD)
    assert screen.after() == ""


def test_a_trace_that_still_grows_is_not_shown(
    screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "QUIET_SECONDS", 60)
    assert screen.after(ROOT) == ""


def test_a_trace_waits_for_what_other_services_have_yet_to_send(
    screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Screen(monkeypatch, export_interval=60).after(ROOT) == ""
    assert "root" in screen.after(ROOT)


def test_a_trace_waits_for_missing_parents(screen: Screen) -> None:
    assert screen.after(CHILD) == ""
    assert "root" in screen.after(ROOT)


def test_a_linked_trace_is_shown_beneath_its_cause(screen: Screen) -> None:
    assert screen.after(CHILD, LINKED) == ""
    shown = screen.after(ROOT)
    assert shown.index("root") < shown.index("Linked trace") < shown.index("batch")
    assert screen.after() == ""


def test_problems_are_shown_once(screen: Screen) -> None:
    shown = screen.after(ROOT, ROOT)
    assert "arrived twice" in shown
    assert screen.after() == ""
