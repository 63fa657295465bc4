"""Reads traces from Tempo, or from an OTLP receiver in its place."""

import time
from typing import Any, ClassVar

from ..otlp import Span, spans_of_json
from . import HttpStore

MAX_SECONDS = 7 * 86_400
"""The longest period of a search in Tempo (`query_frontend.search.max_duration`)."""


class Tempo(HttpStore):
    NAME: ClassVar = "Tempo"
    PORT: ClassVar = 3200
    PAGE: ClassVar = ""

    def is_ready(self) -> bool:
        return self._answers("/ready")

    def trace(self, trace_id: str) -> list[Span]:
        answer = self._get(f"/api/v2/traces/{trace_id}") or {}
        try:
            return spans_of_json(answer.get("trace", {}))
        except ValueError:
            return []

    def linked(self, trace_id: str, since: float) -> list[str]:
        now = int(time.time())
        # Tempo compares ids without their leading zeros.
        query = '{ link:traceID = "%s" }' % trace_id.lstrip("0")  # noqa: UP031 (braces of its own)
        start = max(int(since), now - MAX_SECONDS)
        found = self._get("/api/search", timeout=5, q=query, start=start, end=now + 60) or {}
        ids = (one["traceID"].rjust(32, "0") for one in found.get("traces") or ())
        return sorted(set(ids) - {trace_id})

    def explore_query(self, trace_id: str) -> dict[str, Any]:
        return {"datasource": {"type": "tempo"}, "queryType": "traceql", "query": trace_id}
