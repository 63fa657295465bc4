"""Reads traces from Tempo, or from a sink that answers in its place (`query`)."""

import json
import time
from urllib.parse import quote, urlencode

from google.protobuf.json_format import ParseDict, ParseError
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from . import decode, web
from .model import Span
from .waterfall import orphans

QUIET_SECONDS = 6.0
"""Services send their spans every 5 s: when nothing came for longer, nothing more will."""

MOST_SECONDS = 7 * 86_400
"""How far back Tempo searches at once (`query_frontend.search.max_duration`)."""
MOST_TRACES = 20
"""That are shown with one."""


def answers(url: str) -> bool:
    return web.status(f"{url}/ready") == 200


def trace(url: str, trace_id: str) -> list[Span]:
    """Read the spans of a trace; none when it is not there (yet)."""
    try:
        answer = web.get(f"{url}/api/v2/traces/{trace_id}")
        found = (answer.body or {}).get("trace", {}) if answer.status == 200 else {}
        # Ids are base64, as protobuf's JSON mapping writes bytes (OTLP/JSON has them in hex).
        data = ParseDict(found, TracesData(), ignore_unknown_fields=True)
    except (OSError, ParseError):
        return []
    return decode.spans(data.resource_spans)[0]


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


def wait_for_family(url: str, trace_id: str, timeout: float) -> list[Span]:
    """Wait for a trace and those that link to it; after so many seconds return what is there.

    It is whole when every parent and every linked span has arrived. One that nothing links to is
    whole when nothing came for a while.
    """
    deadline = time.monotonic() + timeout
    spans: list[Span] = []
    grown = time.monotonic()
    while time.monotonic() < deadline:
        before = len(spans)
        own = trace(url, trace_id)
        others = _followers(url, trace_id, own) if own else []
        spans = own + others
        if len(spans) != before:
            grown = time.monotonic()
        if own and others and _whole(own, others):
            break
        if own and time.monotonic() - grown > QUIET_SECONDS:
            break
        time.sleep(0.5)
    return spans


def _followers(url: str, trace_id: str, own: list[Span]) -> list[Span]:
    """Read the traces that link to a trace, and those that link to them: a replay, and its own."""
    since = min(span.start_ns for span in own) / 1e9 - 1
    family = [trace_id]
    spans: list[Span] = []
    for one in family:  # grows on the way
        more = [other for other in linked(url, one, since) if other not in family]
        family += more[: MOST_TRACES - len(family)]
        spans += [span for other in more if other in family for span in trace(url, other)]
    return spans


def _whole(own: list[Span], others: list[Span]) -> bool:
    ids = {(span.trace_id, span.span_id) for span in own}
    targets = {(link.trace_id, link.span_id) for span in others for link in span.links}
    return not orphans(own) and {one for one in targets if one[0] == own[0].trace_id} <= ids


def explore_link(grafana: str, trace_id: str) -> str:
    """Make the address of Grafana's Explore page that shows this trace."""
    source = {"type": "tempo", "uid": "tempo"}
    query = {"refId": "A", "datasource": source, "queryType": "traceql", "query": trace_id}
    pane = {
        "datasource": "tempo",
        "queries": [query],
        "range": {"from": "now-1h", "to": "now"},
    }
    panes = json.dumps({"trace": pane}, separators=(",", ":"))
    return f"{grafana}/explore?schemaVersion=1&panes={quote(panes, safe='')}&orgId=1"
