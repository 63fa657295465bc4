"""Spans that the commands find, as if the trace backend had them."""

from collections.abc import Callable

import pytest

from faststream_otel.dev import backend
from faststream_otel.dev.model import Span

Keep = Callable[..., None]


@pytest.fixture
def keep(monkeypatch: pytest.MonkeyPatch) -> Keep:
    """Have spans kept where the commands ask the backend for them, whichever it is."""
    kept: list[Span] = []

    def trace(url: str, trace_id: str) -> list[Span]:
        return [span for span in kept if span.trace_id == trace_id]

    def linked(url: str, trace_id: str, since: float) -> list[str]:
        return sorted(
            {span.trace_id for span in kept if any(one.trace_id == trace_id for one in span.links)}
        )

    monkeypatch.setenv("GRAFANA_PORT", "3001")
    monkeypatch.setattr(backend, "answers", lambda url: True)
    monkeypatch.setattr(backend, "trace", trace)
    monkeypatch.setattr(backend, "linked", linked)
    return lambda *spans: kept.extend(spans)
