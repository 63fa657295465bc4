"""Reads traces from Zipkin, where the Collector stored events and links as text.

Zipkin does not keep the case of names, the types of attributes, the difference between attributes
of the span and of the resource, and fractions of a microsecond.
"""

import json
import time
from typing import Any, ClassVar, cast

from ..otlp import Event, Link, Span, Status
from . import HttpStore

MAX_SEARCHED = 500
"""How many of the newest traces with links to read: Zipkin cannot search for a link's target."""
LINK = "otlp.link."
"""Prefix of the tags that hold links."""


class Zipkin(HttpStore):
    NAME: ClassVar = "Zipkin"
    PORT: ClassVar = 9411
    PAGE: ClassVar = "/zipkin/traces/{trace_id}"

    def is_ready(self) -> bool:
        return self._answers("/health")

    def trace(self, trace_id: str) -> list[Span]:
        return [_span(one) for one in self._get(f"/api/v2/trace/{trace_id}") or ()]

    def linked(self, trace_id: str, since: float) -> list[str]:
        now = time.time() + 60
        traces = self._get(
            "/api/v2/traces",
            timeout=5,
            annotationQuery=f"{LINK}0",
            endTs=int(now * 1000),
            lookback=int((now - since) * 1000),
            limit=MAX_SEARCHED,
        )
        spans = [_span(one) for spans in traces or () for one in spans]
        links = {(span.trace_id, link.trace_id) for span in spans for link in span.links}
        return sorted({one for one, target in links if target == trace_id} - {trace_id})

    def explore_query(self, trace_id: str) -> dict[str, Any]:
        return {"datasource": {"type": "zipkin"}, "queryType": "traceID", "query": trace_id}


def _span(raw: dict[str, Any]) -> Span:
    tags: dict[str, str] = dict(raw.get("tags", {}))
    links = tuple(_link(tags.pop(key)) for key in sorted(tags) if key.startswith(LINK))
    start = int(raw.get("timestamp", 0)) * 1000
    error = tags.pop("error", "")
    status = tags.pop("otel.status_code", "STATUS_CODE_ERROR" if error else "STATUS_CODE_UNSET")
    return Span(
        trace_id=raw["traceId"].rjust(32, "0"),
        span_id=raw["id"],
        parent_id=raw.get("parentId"),
        name=raw.get("name", ""),
        kind=raw.get("kind") or tags.pop("span.kind", "unspecified").upper(),
        start_ns=start,
        end_ns=start + int(raw.get("duration", 0)) * 1000,
        service=raw.get("localEndpoint", {}).get("serviceName", ""),
        events=tuple(_event(one) for one in raw.get("annotations", ())),
        links=links,
        status=cast("Status", status.removeprefix("STATUS_CODE_")),
        status_message=tags.pop("otel.status_description", ""),
        attributes=tags,
    )


def _link(text: str) -> Link:
    """Read `trace id|span id|trace state|attributes|number of dropped attributes`."""
    trace_id, span_id, _, rest = text.split("|", 3)
    return Link(trace_id.rjust(32, "0"), span_id, _attributes(rest))


def _event(raw: dict[str, Any]) -> Event:
    """Read a name, or `name|attributes|number of dropped attributes`."""
    name, _, rest = raw["value"].partition("|")
    return Event(name, int(raw["timestamp"]) * 1000, _attributes(rest))


def _attributes(text: str) -> dict[str, Any]:
    """Read `attributes|number of dropped attributes`; none from any other text."""
    try:
        attributes = json.loads(text.rpartition("|")[0])
    except ValueError:
        return {}
    return attributes if isinstance(attributes, dict) else {}
