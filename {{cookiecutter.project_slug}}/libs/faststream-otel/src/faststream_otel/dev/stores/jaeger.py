"""Reads traces from Jaeger, by the third version of its HTTP API: OTLP in JSON."""

import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from .. import decode, web
from ..model import Span

NAME = "Jaeger"
PORT_VARIABLE, PORT = "JAEGER_PORT", 16686
PAGE = "/trace/{trace_id}"
"""Of a trace, in Jaeger's own pages."""

MOST_SEARCHED = 200
"""The newest traces of each service that are searched for links: Jaeger itself cannot."""


def answers(url: str) -> bool:
    return web.status(f"{url}/api/v3/services") == 200


def trace(url: str, trace_id: str) -> list[Span]:
    """Read the spans of a trace; none when it is not there (yet)."""
    # Raw: as they were sent, without the adjustments that its pages make.
    return _spans(f"{url}/api/v3/traces/{trace_id}?raw_traces=true")


def linked(url: str, trace_id: str, since: float) -> list[str]:
    """Name the traces that have a link to this one, of those from `since` (Unix seconds) on."""
    try:
        services = (web.get(f"{url}/api/v3/services").body or {}).get("services") or ()
    except OSError:
        return []
    found: set[str] = set()
    for service in services:
        query = {
            "query.service_name": service,
            "query.start_time_min": _time(since),
            "query.start_time_max": _time(time.time() + 60),
            "query.num_traces": MOST_SEARCHED,
            "query.raw_traces": "true",
        }
        found |= {
            span.trace_id
            for span in _spans(f"{url}/api/v3/traces?{urlencode(query)}", timeout=5)
            if any(link.trace_id == trace_id for link in span.links)
        }
    return sorted(found - {trace_id})


def explore_query(trace_id: str) -> dict[str, Any]:
    """What Grafana's data source is asked for a trace."""
    return {"datasource": {"type": "jaeger"}, "query": trace_id}


def _spans(url: str, timeout: float = 2.0) -> list[Span]:
    try:
        answer = web.get(url, timeout)
        found = (answer.body or {}).get("result", {}) if answer.status == 200 else {}
        return decode.spans_of_json(found, hex_ids=True)
    except (OSError, ValueError):
        return []


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
