"""Rate, errors and duration of the work that reaches services, for any board."""

from grafana_foundation_sdk.builders import heatmap, timeseries

from .panels import NO_SPAN_METRICS, PER_SECOND, SECONDS, SHARE, heat_map, series, time_series
from .promql import (
    CALLS,
    DURATION,
    ENTRY,
    EVERYTHING_CHOSEN,
    FAILED,
    WINDOW,
    quantile,
    rate,
    select,
    share,
    total,
)

_CALLS = select(CALLS, *EVERYTHING_CHOSEN, ENTRY)
_FAILED = select(CALLS, *EVERYTHING_CHOSEN, ENTRY, FAILED)
_DURATIONS = select(DURATION, *EVERYTHING_CHOSEN, ENTRY)


def by(label: str) -> list[timeseries.Panel]:
    """The three, with a line for each value of the label."""
    return [_rate(label), _errors(label), _duration(label)]


def durations() -> heatmap.Panel:
    return heat_map(
        "How long it took",
        "Requests and messages, by how long they took. A dot is a sample: it leads to its trace.",
        series(total(f"increase({_DURATIONS}[{WINDOW}])", "le"), "{{le}}", exemplars=True),
        empty=NO_SPAN_METRICS,
    )


def _rate(label: str) -> timeseries.Panel:
    return time_series(
        "Rate",
        "Requests received and messages processed per second.",
        PER_SECOND,
        series(total(rate(_CALLS), label), f"{{{{{label}}}}}"),
        empty=NO_SPAN_METRICS,
    )


def _errors(label: str) -> timeseries.Panel:
    return time_series(
        "Errors",
        "The share of requests and messages whose span ended in an error.",
        SHARE,
        series(share(total(rate(_FAILED), label), total(rate(_CALLS), label)), f"{{{{{label}}}}}"),
        empty=NO_SPAN_METRICS,
    )


def _duration(label: str) -> timeseries.Panel:
    return time_series(
        "Duration, 95th percentile",
        "95 % of the requests and messages took no longer than this. A dot is a sample: it leads"
        " to its trace.",
        SECONDS,
        series(quantile(0.95, _DURATIONS, label), f"{{{{{label}}}}}", exemplars=True),
        empty=NO_SPAN_METRICS,
    )
