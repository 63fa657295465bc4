"""The HTTP APIs that the tests ask: the service, the trace store, logs and metrics."""

import base64
import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from typing import Any

TIMEOUT_SECONDS = 10


@dataclass(frozen=True)
class Span:
    """A span as the trace store tells it; ids are hexadecimal."""

    trace_id: str
    span_id: str
    parent_id: str
    service: str
    name: str
    kind: str
    status: str
    links: list[tuple[str, str]] = field(default_factory=list)
    """Trace id and span id of each."""


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any


def get(url: str, **query: str) -> Any:
    """Return the decoded JSON.

    Raises:
        OSError: No connection, or a status other than 2xx.
    """
    if query:
        url += "?" + urllib.parse.urlencode(query)
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
        return json.load(response)


def post(url: str, body: object) -> Answer:
    """Return status and decoded body, whatever the status is."""
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            return Answer(response.status, json.load(response))
    except urllib.error.HTTPError as error:
        return Answer(error.code, json.load(error))


@dataclass(frozen=True)
class Tempo:
    url: str

    def trace(self, trace_id: str) -> list[Span]:
        """Return the spans there are so far."""
        answer = get(f"{self.url}/api/v2/traces/{trace_id}")
        return [
            _span(span, _text(resource["resource"], "service.name"))
            for resource in answer.get("trace", {}).get("resourceSpans", [])
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        ]

    def traces_linked_to(self, trace_id: str) -> list[str]:
        """Return the ids of the traces that have a link to this one."""
        found = get(f"{self.url}/api/search", q=f'{{ link:traceID = "{trace_id}" }}')
        # Tempo writes ids without leading zeros here.
        return [trace["traceID"].zfill(32) for trace in found.get("traces", [])]


@dataclass(frozen=True)
class Loki:
    url: str

    def records(self, service: str, trace_id: str) -> list[str]:
        """Return the texts of a service's log records that carry the trace id."""
        found = get(
            f"{self.url}/loki/api/v1/query_range",
            query=f'{{service_name="{service}"}} | trace_id="{trace_id}"',
        )
        return [text for stream in found["data"]["result"] for _, text in stream["values"]]


@dataclass(frozen=True)
class Prometheus:
    url: str

    def series(self, query: str) -> list[dict[str, str]]:
        """Return the labels of each series in an instant query's answer."""
        found = get(f"{self.url}/api/v1/query", query=query)
        return [series["metric"] for series in found["data"]["result"]]

    def exemplar_traces(self, query: str) -> set[str]:
        """Return the trace ids of the exemplars there are for a query."""
        found = get(f"{self.url}/api/v1/query_exemplars", query=query, start="0", end="9999999999")
        return {
            exemplar["labels"]["trace_id"]
            for series in found["data"]
            for exemplar in series["exemplars"]
        }

    def targets(self) -> dict[str, list[str]]:
        """Return the health of each scrape pool's targets."""
        pools: dict[str, list[str]] = {}
        for target in get(f"{self.url}/api/v1/targets")["data"]["activeTargets"]:
            pools.setdefault(target["scrapePool"], []).append(target["health"])
        return pools


def _span(span: dict[str, Any], service: str) -> Span:
    return Span(
        trace_id=_hex(span["traceId"]),
        span_id=_hex(span["spanId"]),
        parent_id=_hex(span.get("parentSpanId", "")),
        service=service,
        name=span["name"],
        kind=span["kind"].removeprefix("SPAN_KIND_"),
        status=span.get("status", {}).get("code", "STATUS_CODE_UNSET").removeprefix("STATUS_CODE_"),
        links=[(_hex(link["traceId"]), _hex(link["spanId"])) for link in span.get("links", [])],
    )


def _hex(identifier: str) -> str:
    return base64.b64decode(identifier).hex()


def _text(resource: dict[str, Any], key: str) -> str:
    return next(
        (str(one["value"]["stringValue"]) for one in resource["attributes"] if one["key"] == key),
        "",
    )
