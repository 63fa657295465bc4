"""Converts values to types that OTLP can carry.

OTLP's texts are UTF-8 and its integers have 64 bits. An encoder raises on a lone surrogate, which
`os.fsdecode` and JSON may return, and the whole batch is lost, with hundreds of good spans or
records in it. This module escapes such a text (`\\udc80`), and turns values of other types into
text.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from itertools import islice
from typing import Any, cast

from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanKind
from opentelemetry.util.types import AnyValue, AttributeValue

Attributes = dict[str, AttributeValue]
"""Attributes of a span or a metric."""

MAX_DEPTH = 10
"""Depth of nested containers; protobuf accepts about 30."""
MAX_ELEMENTS = 1000
"""Elements of a container; `range(10**9)` is one too."""
MAX_SHOWN = 1000
"""Characters of a `repr`."""


def text(of: object) -> str:
    """A text, or `str` of any other object; lone surrogates are escaped. Never raises."""
    if type(of) is str and of.isascii():
        return of
    if issubclass(type(of), str):  # `isinstance` asks the object, which may raise
        return str.encode(cast("str", of), errors="backslashreplace").decode()
    try:
        return text(str(of))
    except Exception:
        return shown(of)


def decoded(of: bytes | None) -> str:
    """Bytes as text; invalid UTF-8 becomes replacement characters. Empty for None."""
    return (of or b"").decode(errors="replace")


def shown(of: object) -> str:
    """`repr`, cut to `MAX_SHOWN` characters. Never raises."""
    try:
        return text(repr(of)[:MAX_SHOWN])
    except Exception as error:
        return f"<{type(of).__name__}: repr raises {type(error).__name__}>"


def value(of: object) -> AnyValue:
    """The value of an attribute, or the body of a log record, in OTLP's types. Never raises."""
    try:
        return _value(of, ())
    except Exception:  # an object may raise at any operation, even at `isinstance`
        return shown(of)


def attributes(of: Mapping[Any, object] | None) -> dict[str, AnyValue]:
    """Attributes in OTLP's types."""
    return {text(key): value(one) for key, one in (of or {}).items()}


def spans(batch: Sequence[ReadableSpan]) -> Sequence[ReadableSpan]:
    """Spans whose values an OTLP encoder accepts."""
    shared = _Shared()
    return [cast("ReadableSpan", _span(one, shared)) for one in batch]


def records(batch: Sequence[ReadableLogRecord]) -> Sequence[ReadableLogRecord]:
    """Log records whose values an OTLP encoder accepts."""
    shared = _Shared()
    return [cast("ReadableLogRecord", _record(one, shared)) for one in batch]


def metrics(data: MetricsData) -> MetricsData:
    """Metrics whose values an OTLP encoder accepts."""
    return replace(
        data,
        resource_metrics=[
            replace(
                of_resource,
                resource=_resource(of_resource.resource),
                scope_metrics=[
                    replace(
                        of_scope,
                        scope=_scope(of_scope.scope),
                        metrics=[_metric(metric) for metric in of_scope.metrics],
                    )
                    for of_scope in of_resource.scope_metrics
                ],
            )
            for of_resource in data.resource_metrics
        ],
    )


class _With:
    """An object of the SDK, with some of its attributes replaced."""

    def __init__(self, of: object, **replaced: object) -> None:
        self._of = of
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of, name)


class _Shared:
    """Caches converted resources and scopes: a batch refers to the same few objects."""

    def __init__(self) -> None:
        self._known: dict[int, Any] = {}

    def of(self, one: Any) -> dict[str, Any]:
        """The resource and the scope of a span or a log record."""
        resource, scope = one.resource, one.instrumentation_scope
        known = self._known
        if id(resource) not in known:
            known[id(resource)] = _resource(resource)
        if id(scope) not in known:
            known[id(scope)] = _scope(scope)
        return {"resource": known[id(resource)], "instrumentation_scope": known[id(scope)]}


def _span(span: ReadableSpan, shared: _Shared) -> _With:
    events = [
        _With(
            event,
            name=text(event.name),
            timestamp=_time(event.timestamp),
            attributes=attributes(event.attributes),
        )
        for event in span.events
    ]
    return _With(
        span,
        name=text(span.name),
        kind=span.kind if isinstance(span.kind, SpanKind) else SpanKind.INTERNAL,
        start_time=_time(span.start_time),
        end_time=_time(span.end_time),
        attributes=attributes(span.attributes),
        events=events,
        links=[_With(link, attributes=attributes(link.attributes)) for link in span.links],
        status=_With(span.status, description=_text_or_none(span.status.description)),
        **shared.of(span),
    )


def _record(record: ReadableLogRecord, shared: _Shared) -> _With:
    log = record.log_record
    return _With(
        record,
        log_record=_With(
            log,
            timestamp=_time(log.timestamp),
            observed_timestamp=_time(log.observed_timestamp),
            severity_text=_text_or_none(log.severity_text),
            body=value(log.body),
            attributes=attributes(log.attributes),
            event_name=_text_or_none(log.event_name),
        ),
        **shared.of(record),
    )


def _metric(metric: Any) -> Any:
    points = [_point(point) for point in metric.data.data_points]
    return replace(
        metric,
        description=_text_or_none(metric.description),
        data=replace(metric.data, data_points=points),
    )


def _point(point: Any) -> Any:
    numbers = {
        name: _number(number)
        for name in ("value", "sum", "min", "max")
        if (number := getattr(point, name, None)) is not None
    }
    exemplars = [
        replace(
            exemplar,
            value=_number(exemplar.value),
            filtered_attributes=attributes(exemplar.filtered_attributes),
        )
        for exemplar in point.exemplars
    ]
    return replace(point, attributes=attributes(point.attributes), exemplars=exemplars, **numbers)


def _resource(resource: Resource) -> Resource:
    clean = attributes(resource.attributes)
    return resource if clean == resource.attributes else Resource(clean, resource.schema_url)


def _scope(scope: Any) -> Any:
    if scope is None:
        return None
    clean = InstrumentationScope(
        text(scope.name),
        _text_or_none(scope.version),
        _text_or_none(scope.schema_url),
        attributes(scope.attributes),
    )
    return scope if clean == scope else clean


def _value(of: object, around: tuple[int, ...]) -> AnyValue:
    """`around`: the identities of the containers that hold the value."""
    if isinstance(of, str):
        return text(of)
    if of is None or isinstance(of, bool | float | bytes):
        return of
    if isinstance(of, int):
        # Not `in range(…)`: that iterates for an instance of a subclass, such as HTTPStatus.
        return of if -(2**63) <= of < 2**63 else _digits(of)
    if isinstance(of, bytearray | memoryview):
        return bytes(of)
    if not isinstance(of, Mapping | Sequence | AbstractSet):
        return text(of)
    if id(of) in around:
        return "..."  # as Python shows a container that contains itself
    if len(around) >= MAX_DEPTH:
        return shown(of)
    around = (*around, id(of))
    first = islice(of.items() if isinstance(of, Mapping) else of, MAX_ELEMENTS)
    if isinstance(of, Mapping):
        return {text(key): _value(one, around) for key, one in first}
    return tuple(_value(one, around) for one in first)


def _digits(number: int) -> str:
    try:
        return str(int(number))
    except ValueError:  # more than `sys.get_int_max_str_digits`
        return hex(number)[:MAX_SHOWN]


def _number(of: Any) -> int | float:
    """A measured value; an integer of more than 64 bits becomes a float."""
    if isinstance(of, float) or (isinstance(of, int) and -(2**63) <= of < 2**63):
        return of
    try:
        return float(of)
    except OverflowError:
        return float("inf") if of > 0 else float("-inf")
    except (TypeError, ValueError):
        return float("nan")


def _time(of: object) -> int | None:
    """Nanoseconds since 1970, as a whole number; 0 if OTLP cannot carry the time."""
    if of is None or (isinstance(of, int) and 0 <= of < 2**64):
        return of
    return int(of) if isinstance(of, int | float) and 0 <= of < 2**64 else 0


def _text_or_none(of: object) -> str | None:
    return None if of is None else text(of)
