"""The HTTP APIs that the tests ask: the service, the trace store, logs and metrics."""

import base64
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from typing import Any

TIMEOUT_SECONDS = 10
SEARCH_SECONDS = 60  # for hundreds of traces at once


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
    attributes: dict[str, Any] = field(default_factory=dict)
    resource: dict[str, Any] = field(default_factory=dict)
    """The attributes of what made it; empty where a search does not tell them."""
    start_ns: int = 0
    end_ns: int = 0


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any


def get(
    url: str,
    headers: dict[str, str] | None = None,
    *,
    within: float = TIMEOUT_SECONDS,
    **query: str,
) -> Any:
    """Return the decoded JSON.

    Args:
        within: Seconds.
        query: Parameters of the URL.

    Raises:
        OSError: No connection, or a status other than 2xx.
    """
    if query:
        url += "?" + urllib.parse.urlencode(query)
    request = urllib.request.Request(url, headers=headers or {})
    with urllib.request.urlopen(request, timeout=within) as response:
        return json.load(response)


def post(url: str, body: object, headers: dict[str, str] | None = None) -> Answer:
    """Return status and decoded body, whatever the status is."""
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})}
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
        return spans_of(get(f"{self.url}/api/v2/traces/{trace_id}", within=SEARCH_SECONDS))

    def text_of(self, trace_id: str) -> str:
        """Return all that is told of a trace, as it comes."""
        return json.dumps(get(f"{self.url}/api/v2/traces/{trace_id}"), ensure_ascii=False)

    def tag_values(self, tag: str) -> str:
        """Return all values of a tag in the last hour, as they come."""
        return json.dumps(get(f"{self.url}/api/v2/search/tag/{tag}/values"), ensure_ascii=False)

    def traces_linked_to(self, trace_id: str) -> list[str]:
        """Return the ids of the traces that have a link to this one."""
        # Tempo compares and writes ids without leading zeros here.
        cause = trace_id.lstrip("0")
        found = self.search(f'{{ link:traceID = "{cause}" }}', 3600)
        return [trace["traceID"].zfill(32) for trace in found]

    def search(self, query: str, seconds: int) -> list[dict[str, Any]]:
        """Return the traces of the last so many seconds that a TraceQL query finds."""
        now = int(time.time())
        return self.search_between(query, now - seconds, now + 60)

    def search_between(
        self, query: str, start: int, end: int, traces: int = 20, spans: int = 3
    ) -> list[dict[str, Any]]:
        """Return what a query finds between two Unix seconds.

        Args:
            traces: At most so many,
            spans: and of each at most so many of the spans that match.
        """
        found = get(
            f"{self.url}/api/search",
            within=SEARCH_SECONDS,
            q=query, start=str(start), end=str(end), limit=str(traces), spss=str(spans),
        )  # fmt: skip
        return list(found.get("traces", []))


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

    def search(self, query: str, seconds: int) -> list[dict[str, Any]]:
        """Return the streams, or series, of the last so many seconds."""
        found = get(
            f"{self.url}/loki/api/v1/query_range", query=query, since=f"{seconds}s", step="15"
        )
        return list(found["data"]["result"])

    def value(self, query: str) -> float:
        """Return what a query that makes one number makes of now; 0 if it has nothing to count."""
        found = get(f"{self.url}/loki/api/v1/query", within=SEARCH_SECONDS, query=query)
        return sum(float(series["value"][1]) for series in found["data"]["result"])


@dataclass(frozen=True)
class Prometheus:
    url: str

    def series(self, query: str) -> list[dict[str, str]]:
        """Return the labels of each series in an instant query's answer."""
        found = get(f"{self.url}/api/v1/query", query=query)
        return [series["metric"] for series in found["data"]["result"]]

    def values(self, query: str, seconds: int = 0) -> list[float]:
        """Return all values of an answer: now, or in steps over the last so many seconds."""
        if not seconds:
            found = get(f"{self.url}/api/v1/query", query=query)["data"]["result"]
            return [float(series["value"][1]) for series in found]
        now = time.time()
        found = get(
            f"{self.url}/api/v1/query_range",
            query=query, start=str(now - seconds), end=str(now), step="15",
        )["data"]["result"]  # fmt: skip
        return [float(value) for series in found for _, value in series["values"]]

    def ever(self, selector: str, seconds: int) -> list[dict[str, str]]:
        """Return the labels of each series that had a sample in the last so many seconds."""
        start = str(time.time() - seconds)
        query = urllib.parse.urlencode({"match[]": selector, "start": start})
        found: list[dict[str, str]] = get(f"{self.url}/api/v1/series?{query}")["data"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        groups = get(f"{self.url}/api/v1/rules")["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

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


@dataclass(frozen=True)
class Grafana:
    """Asked as its user admin."""

    url: str
    password: str

    def boards(self) -> list[str]:
        """Return the uids of all boards."""
        return [one["uid"] for one in self._get("/api/search?type=dash-db")]

    def home(self) -> str:
        """Return the uid of the board that a user sees first."""
        return str(self._get("/api/dashboards/home")["dashboard"]["uid"])

    def datasources(self) -> list[dict[str, Any]]:
        return list(self._get("/api/datasources"))

    def reaches(self, datasource: str, path: str) -> bool:
        """Tell whether a data source answers to a path of its own, asked through Grafana."""
        url = f"{self.url}/api/datasources/proxy/uid/{datasource}{path}"
        request = urllib.request.Request(url, headers=self._authorization)
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            return bool(response.status == 200)

    def query(self, source: str, query: str, seconds: int, *, instant: bool) -> Any:
        """Return the frames of an answer; the data source is the provisioned one of this kind.

        Raises:
            AssertionError: Grafana answers with an error.
        """
        now = int(time.time() * 1000)
        one = {
            "refId": "A",
            "datasource": {"type": source, "uid": f"faststream-{source}"},
            "expr": query,
            "instant": instant,
            "range": not instant,
            "queryType": "range",
            "intervalMs": 15000,
            "maxDataPoints": 500,
        }
        answer = post(
            f"{self.url}/api/ds/query",
            {"queries": [one], "from": str(now - seconds * 1000), "to": str(now)},
            self._authorization,
        )
        assert answer.status == 200, answer.body
        return answer.body["results"]["A"].get("frames")

    def _get(self, path: str) -> Any:
        return get(self.url + path, self._authorization)

    @property
    def _authorization(self) -> dict[str, str]:
        credentials = base64.b64encode(f"admin:{self.password}".encode()).decode()
        return {"Authorization": f"Basic {credentials}"}


def spans_of(answer: dict[str, Any]) -> list[Span]:
    """Read the answer to a question for a trace."""
    return [
        _span(span, attributes_of(resource["resource"]))
        for resource in answer.get("trace", {}).get("resourceSpans", [])
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]


def _span(span: dict[str, Any], resource: dict[str, Any]) -> Span:
    return Span(
        trace_id=_hex(span["traceId"]),
        span_id=_hex(span["spanId"]),
        parent_id=_hex(span.get("parentSpanId", "")),
        service=str(resource.get("service.name", "")),
        name=span["name"],
        kind=span["kind"].removeprefix("SPAN_KIND_"),
        status=span.get("status", {}).get("code", "STATUS_CODE_UNSET").removeprefix("STATUS_CODE_"),
        links=[(_hex(link["traceId"]), _hex(link["spanId"])) for link in span.get("links", [])],
        attributes=attributes_of(span),
        resource=resource,
        start_ns=int(span.get("startTimeUnixNano", 0)),
        end_ns=int(span.get("endTimeUnixNano", 0)),
    )


def _hex(identifier: str) -> str:
    return base64.b64decode(identifier).hex()


def attributes_of(holder: dict[str, Any]) -> dict[str, Any]:
    """Read the attributes of a span or a resource in OTLP's JSON."""
    return {one["key"]: _value(one["value"]) for one in holder.get("attributes", ())}


def _value(value: dict[str, Any]) -> Any:
    """Read a scalar; of what is made of others the JSON is good enough."""
    (kind, what), *_ = [*value.items(), ("", None)]
    return int(what) if kind == "intValue" else what
