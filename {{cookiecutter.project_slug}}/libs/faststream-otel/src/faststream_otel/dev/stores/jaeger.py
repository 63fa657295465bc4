"""Reads traces from Jaeger by version 3 of its HTTP API, which returns OTLP in JSON."""

import time
from datetime import UTC, datetime
from typing import Any, ClassVar

from ..otlp import Span, spans_of_json
from . import HttpStore

MAX_SEARCHED = 200
"""How many of each service's newest traces to search for links, which Jaeger cannot search for."""


class Jaeger(HttpStore):
    NAME: ClassVar = "Jaeger"
    PORT: ClassVar = 16686
    PAGE: ClassVar = "/trace/{trace_id}"

    def is_ready(self) -> bool:
        return self._answers("/api/v3/services")

    def trace(self, trace_id: str) -> list[Span]:
        # Raw: without the adjustments that Jaeger's UI makes.
        return _spans(self._get(f"/api/v3/traces/{trace_id}", raw_traces="true"))

    def linked(self, trace_id: str, since: float) -> list[str]:
        found: set[str] = set()
        for service in (self._get("/api/v3/services") or {}).get("services") or ():
            query: dict[str, str | int] = {
                "query.service_name": service,
                "query.start_time_min": _time(since),
                "query.start_time_max": _time(time.time() + 60),
                "query.num_traces": MAX_SEARCHED,
                "query.raw_traces": "true",
            }
            found |= {
                span.trace_id
                for span in _spans(self._get("/api/v3/traces", timeout=5, **query))
                if any(link.trace_id == trace_id for link in span.links)
            }
        return sorted(found - {trace_id})

    def explore_query(self, trace_id: str) -> dict[str, Any]:
        return {"datasource": {"type": "jaeger"}, "query": trace_id}


def _spans(answer: Any) -> list[Span]:
    try:
        return spans_of_json((answer or {}).get("result", {}), hex_ids=True)
    except ValueError:
        return []


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
