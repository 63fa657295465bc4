"""What keeps the traces, asked over its own HTTP API: a class for each trace backend."""

import json
import os
import re
import time
import urllib.error
from datetime import UTC, datetime
from typing import Any, Protocol

from matrix import OPTIONS

from .apis import SEARCH_SECONDS, Span, Tempo, attributes_of, get

MOST_TRACES = 10_000  # told by one search


class TraceStore(Protocol):
    kind: str
    """As the answer is called, and its service in the compose files."""
    ready: str
    """The path that answers once it is well."""
    service_is_a_tag: bool
    """Whether Grafana finds service.name among the tags of a span, and not only beside them."""

    in_memory: bool = False
    """Whether it forgets all at a restart."""
    page: str
    """The path of a trace in its own pages, but for the id; empty if it has none."""

    def as_it_tells(self, name: str) -> str:
        """Return how it tells the name of a span."""
        return name

    def trace(self, trace_id: str) -> list[Span]:
        """Return the spans there are so far."""

    def text_of(self, trace_id: str) -> str:
        """Return all that is told of a trace, as it comes."""

    def values_of(self, tag: str) -> str:
        """Return all values of a span's tag in the last hour, as they come."""

    def traces_linked_to(self, trace_id: str) -> list[str]:
        """Return the ids of the traces that have a link to this one."""

    def found_by(self, target: dict[str, Any], seconds: int) -> list[Any]:
        """Return what a board's query of it finds, in the last so many seconds.

        Args:
            target: As it stands in the board, its variables filled in.
        """


class InTempo(Tempo, TraceStore):
    kind = "tempo"
    ready = "/ready"
    page = ""
    service_is_a_tag = True

    def values_of(self, tag: str) -> str:
        return self.tag_values(f"span.{tag}")

    def found_by(self, target: dict[str, Any], seconds: int) -> list[Any]:
        query = target["query"]
        # Without braces it is a trace id.
        return list(self.search(query, seconds) if "{" in query else self.trace(query))


class InJaeger(TraceStore):
    kind = "jaeger"
    ready = "/api/services"  # as Grafana asks, too
    page = "/trace/"
    service_is_a_tag = False

    def __init__(self, url: str) -> None:
        self.url = url

    def trace(self, trace_id: str) -> list[Span]:
        return otlp_spans(self._traces(f"/{trace_id}", raw_traces="true"))

    def text_of(self, trace_id: str) -> str:
        return json.dumps(self._traces(f"/{trace_id}"), ensure_ascii=False)

    def values_of(self, tag: str) -> str:
        """All that it tells of the last hour: it does not list values."""
        now = time.time()
        return json.dumps(self.spans_between(now - 3600, now), default=vars, ensure_ascii=False)

    def services(self) -> list[str]:
        return list(get(f"{self.url}/api/v3/services").get("services") or ())

    def traces_linked_to(self, trace_id: str) -> list[str]:
        """Looks through the traces of the last hour: there is no search by links."""
        now = time.time()
        return linking(self.spans_between(now - 3600, now), trace_id)

    def spans_between(self, since: float, until: float) -> list[Span]:
        """Return the spans of the traces that began between two Unix seconds, each once."""
        told = (span for one in self.services() for span in self.spans_of(one, since, until))
        return list({(span.trace_id, span.span_id): span for span in told}.values())

    def spans_of(self, service: str, since: float, until: float) -> list[Span]:
        """Likewise, of those traces that have a span of this service."""
        query = {
            "query.service_name": service,
            "query.start_time_min": _time(since),
            "query.start_time_max": _time(until),
            "query.num_traces": str(MOST_TRACES),
            "query.raw_traces": "true",
        }
        return otlp_spans(self._traces("", **query))

    def found_by(self, target: dict[str, Any], seconds: int) -> list[Any]:
        if target.get("queryType") != "search":
            return list(self.trace(target["query"]))
        now = time.time()
        return self.spans_of(target["service"], now - seconds, now)

    def _traces(self, path: str, **query: str) -> dict[str, Any]:
        try:
            found = get(f"{self.url}/api/v3/traces{path}", None, within=SEARCH_SECONDS, **query)
        except urllib.error.HTTPError as error:
            if error.code == 404:  # its word for none
                return {}
            raise
        return dict(found.get("result") or {})


class InZipkin(TraceStore):
    """Reads what the Collector made of spans back to what they were, where that can be done."""

    kind = "zipkin"
    ready = "/health"
    page = "/zipkin/traces/"
    in_memory = True
    service_is_a_tag = False

    def __init__(self, url: str) -> None:
        self.url = url

    def as_it_tells(self, name: str) -> str:
        return name.lower()

    def trace(self, trace_id: str) -> list[Span]:
        return [zipkin_span(one) for one in self._ask(f"/trace/{trace_id}")]

    def text_of(self, trace_id: str) -> str:
        return json.dumps(self._ask(f"/trace/{trace_id}"), ensure_ascii=False)

    def values_of(self, tag: str) -> str:
        return json.dumps(self._search(3600, annotationQuery=tag), ensure_ascii=False)

    def traces_linked_to(self, trace_id: str) -> list[str]:
        """Looks through what has a link: where it leads is text, and so is not searched for."""
        traces = self._search(3600, annotationQuery="otlp.link.0")
        return linking([zipkin_span(one) for spans in traces for one in spans], trace_id)

    def spans_between(self, since: float, until: float) -> list[Span]:
        """Return the spans of the traces that began between two Unix seconds."""
        traces = self._search(until - since, until)
        if len(traces) >= MOST_TRACES:
            raise OSError(f"more than {MOST_TRACES} traces in {until - since:.0f} s")
        return [zipkin_span(one) for spans in traces for one in spans]

    def found_by(self, target: dict[str, Any], seconds: int) -> list[Any]:
        return list(self.trace(target["query"]))

    def _search(self, seconds: float, until: float | None = None, **query: str) -> list[Any]:
        end = until or time.time() + 60
        return self._ask(
            "/traces", endTs=str(int(end * 1000)), lookback=str(int((seconds + 60) * 1000)),
            limit=str(MOST_TRACES), **query,
        )  # fmt: skip

    def _ask(self, path: str, **query: str) -> list[Any]:
        try:
            return list(get(f"{self.url}/api/v2{path}", None, within=SEARCH_SECONDS, **query))
        except urllib.error.HTTPError as error:
            if error.code == 404:  # its word for none
                return []
            raise


STORES: dict[str, type[InTempo] | type[InJaeger] | type[InZipkin]] = {
    "tempo": InTempo,
    "jaeger": InJaeger,
    "zipkin": InZipkin,
}


def chosen() -> str:
    """Return the trace backend that TRACES asks for; the default one unless it does.

    Raises:
        ValueError: There is none of this name.
    """
    backends = OPTIONS["trace_backend"]
    backend = os.environ.get("TRACES") or backends[0]
    if backend not in backends:
        raise ValueError(f"TRACES={backend} is no trace backend: use one of {', '.join(backends)}")
    return backend


def linking(spans: list[Span], trace_id: str) -> list[str]:
    """Return the ids of the traces that have a link to one."""
    found = {span.trace_id for span in spans if any(link[0] == trace_id for link in span.links)}
    return sorted(found - {trace_id})


def otlp_spans(traces: dict[str, Any]) -> list[Span]:
    """Read OTLP's own JSON, whose ids are in hex and whose kinds are numbers."""
    return [
        Span(
            trace_id=span["traceId"],
            span_id=span["spanId"],
            parent_id=span.get("parentSpanId", ""),
            service=str(made_by.get("service.name", "")),
            name=span["name"],
            kind=KINDS[span.get("kind", 0)],
            status=STATUSES[span.get("status", {}).get("code", 0)],
            links=[(link["traceId"], link["spanId"]) for link in span.get("links", ())],
            attributes=attributes_of(span),
            resource=made_by,
            start_ns=int(span["startTimeUnixNano"]),
            end_ns=int(span["endTimeUnixNano"]),
        )
        for resource in traces.get("resourceSpans", ())
        for made_by in [attributes_of(resource["resource"])]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]


KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
STATUSES = ("UNSET", "OK", "ERROR")


def zipkin_span(raw: dict[str, Any]) -> Span:
    tags: dict[str, Any] = dict(raw.get("tags", {}))
    links = [tags.pop(key).split("|")[:2] for key in sorted(tags) if key.startswith("otlp.link.")]
    status = tags.get("otel.status_code", "STATUS_CODE_UNSET").removeprefix("STATUS_CODE_")
    start = int(raw.get("timestamp", 0)) * 1000
    attributes = {key: int(value) if value.isdecimal() else value for key, value in tags.items()}
    return Span(
        trace_id=raw["traceId"].zfill(32),
        span_id=raw["id"],
        parent_id=raw.get("parentId", ""),
        service=raw.get("localEndpoint", {}).get("serviceName", ""),
        name=METHOD.sub(lambda found: found[0].upper(), raw.get("name", "")),
        kind=raw.get("kind") or tags.get("span.kind", "").upper(),
        status=status,
        links=[(trace_id, span_id) for trace_id, span_id in links],
        attributes=attributes,
        resource=attributes,  # they are among a span's own there
        start_ns=start,
        end_ns=start + int(raw.get("duration", 0)) * 1000,
    )


METHOD = re.compile(r"^(get|post)(?= /)")
"""Zipkin has names in lower case; ours have capitals nowhere else."""


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
