"""Reads traces from Tempo, or from a sink that answers in its place (`query`)."""

import time
from typing import Any
from urllib.parse import urlencode

from .. import decode, web
from ..model import Span

NAME = "Tempo"
PORT_VARIABLE, PORT = "TEMPO_PORT", 3200
PAGE = ""
"""It has none of its own: Grafana shows what it keeps."""

MOST_SECONDS = 7 * 86_400
"""How far back Tempo searches at once (`query_frontend.search.max_duration`)."""


def answers(url: str) -> bool:
    return web.status(f"{url}/ready") == 200


def trace(url: str, trace_id: str) -> list[Span]:
    """Read the spans of a trace; none when it is not there (yet)."""
    try:
        answer = web.get(f"{url}/api/v2/traces/{trace_id}")
        found = (answer.body or {}).get("trace", {}) if answer.status == 200 else {}
        return decode.spans_of_json(found)
    except (OSError, ValueError):
        return []


def linked(url: str, trace_id: str, since: float) -> list[str]:
    """Name the traces that have a link to this one, of those from `since` (Unix seconds) on."""
    now = int(time.time())
    start = max(int(since), now - MOST_SECONDS)
    # Tempo compares ids without the zeros that they begin with.
    linking = '{ link:traceID = "%s" }' % trace_id.lstrip("0")  # noqa: UP031 (braces of its own)
    query = urlencode({"q": linking, "start": start, "end": now + 60})
    try:
        found = web.get(f"{url}/api/search?{query}", timeout=5).body or {}
    except OSError:
        return []
    ids = (one["traceID"].rjust(32, "0") for one in found.get("traces") or ())
    return sorted(set(ids) - {trace_id})


def explore_query(trace_id: str) -> dict[str, Any]:
    """What Grafana's data source is asked for a trace."""
    return {"datasource": {"type": "tempo"}, "queryType": "traceql", "query": trace_id}
