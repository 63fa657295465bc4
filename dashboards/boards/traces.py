"""Home: how the services fare, the newest traces, and the one that was clicked."""

from grafana_foundation_sdk.builders import logs, table
from grafana_foundation_sdk.models.dashboard import Dashboard

from .. import red
from ..board import Row
from ..board import board as board_with
from ..panels import NO_SPAN_METRICS, PER_SECOND, SECONDS, SHARE, joined_table, log_lines
from ..promql import (
    CALLS,
    DURATION,
    EVERYTHING_CHOSEN,
    FAILED,
    RANGE,
    quantile,
    rate,
    select,
    share,
    total,
)
from ..tracestore import TRACE_ID, TraceStore, trace_id_variable

OPERATION = ("service_name", "span_name")


def board(store: TraceStore) -> Dashboard:
    return board_with(
        "traces",
        "Traces",
        "Which requests came recently, how did they go, and where did each spend its time? Click a"
        " trace in the list: it opens below, with its logs and what it caused.",
        Row(6, [*red.by("service_name")]),
        Row(8, [red.durations(), slowest_operations()], [10, 14]),
        Row(12, [store.newest_traces()]),
        Row(16, [store.trace()]),
        Row(9, [logs_of_trace(), store.linked_traces()]),
        extra_variables=[*store.variables(), trace_id_variable(store.no_trace)],
        page=store.page,
    )


def logs_of_trace() -> logs.Panel:
    return log_lines(
        "Its logs",
        "What the services logged while they worked on the open trace.",
        # Trace ids may come without the zeros that they begin with.
        f'{{service_name=~".+"}} | trace_id=~`0*${TRACE_ID}`',
        empty="Click a trace to see its logs",
    )


def slowest_operations() -> table.Panel:
    spans = select(CALLS, *EVERYTHING_CHOSEN)
    failed = select(CALLS, *EVERYTHING_CHOSEN, FAILED)
    slow = quantile(0.95, select(DURATION, *EVERYTHING_CHOSEN), *OPERATION, window=RANGE)
    slowest = f"topk(10, {slow} >= 0)"
    calls = total(rate(spans, RANGE), *OPERATION)
    of_these = f"and on ({', '.join(OPERATION)}) {slowest}"
    return joined_table(
        "Slowest operations",
        "The ten span names that took longest, by the 95th percentile over the time range.",
        {"service_name": "Service", "span_name": "Operation"},
        {
            "95th percentile": (SECONDS, slowest),
            "Rate": (PER_SECOND, f"{calls} {of_these}"),
            "Failed": (
                SHARE,
                f"{share(total(rate(failed, RANGE), *OPERATION), calls)} {of_these}",
            ),
        },
        empty=NO_SPAN_METRICS,
        sort_by="95th percentile",
    )
