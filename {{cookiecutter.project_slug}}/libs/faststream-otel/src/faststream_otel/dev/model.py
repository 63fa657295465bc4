"""What the sink makes of OTLP: plain values, with ids as lower-case hex and times in nanoseconds
since the epoch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Signal = Literal["traces", "metrics", "logs"]
Protocol = Literal["grpc", "http/protobuf"]
Status = Literal["UNSET", "OK", "ERROR"]
Attributes = Mapping[str, Any]


@dataclass(frozen=True)
class Event:
    """Something that happened during a span; an exception is one named `exception`."""

    name: str
    time_ns: int
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True)
class Link:
    """A span that caused this one without being its parent."""

    trace_id: str
    span_id: str
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True)
class Span:
    """One operation. `parent_id` is None at the root; `kind` is SERVER, CLIENT, PRODUCER,
    CONSUMER, INTERNAL or UNSPECIFIED; `service` is the resource's service.name ("" without)."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: str
    start_ns: int
    end_ns: int
    service: str = ""
    attributes: Attributes = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    links: tuple[Link, ...] = ()
    status: Status = "UNSET"
    status_message: str = ""
    resource: Attributes = field(default_factory=dict)
    scope: str = ""
    scope_version: str = ""
    schema_url: str = ""

    @property
    def duration_ns(self) -> int:
        return self.end_ns - self.start_ns


@dataclass(frozen=True)
class LogRecord:
    """One log record. `trace_id` and `span_id` are None for a record outside of any span."""

    time_ns: int
    severity: str
    body: Any
    severity_number: int = 0
    service: str = ""
    trace_id: str | None = None
    span_id: str | None = None
    attributes: Attributes = field(default_factory=dict)
    resource: Attributes = field(default_factory=dict)
    scope: str = ""
    event_name: str = ""


@dataclass(frozen=True)
class MetricPoint:
    """One data point. `kind` is gauge, sum, histogram, exponential_histogram or summary.

    `value` is the number of a gauge or sum, and the sum of the observations of the others, whose
    `count` tells how many there were. `bounds` (n) and `bucket_counts` (n + 1) are those of a
    histogram. `cumulative` and `monotonic` say how to read sums.
    """

    name: str
    kind: str
    time_ns: int
    value: float
    unit: str = ""
    service: str = ""
    attributes: Attributes = field(default_factory=dict)
    count: int = 0
    bounds: tuple[float, ...] = ()
    bucket_counts: tuple[int, ...] = ()
    cumulative: bool = True
    monotonic: bool = False
    resource: Attributes = field(default_factory=dict)
    scope: str = ""


@dataclass(frozen=True)
class Export:
    """One request of an exporter: what it carried, how, and with which headers (names in lower
    case). gRPC hides its own encoding header, so compression shows for http/protobuf only."""

    signal: Signal
    protocol: Protocol
    items: int
    headers: Mapping[str, str]
