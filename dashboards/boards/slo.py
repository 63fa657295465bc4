"""Do flows end well and soon enough, and how much of what may go wrong is used up?

A flow is all that follows from one first message, to the end of its last process. How much of it
may be bad stands in the recording rules. What counts as bad stands there, too, and here once more:
their series are those of whole environments, and a board can be narrowed down to a destination.
"""

from grafana_foundation_sdk.builders import heatmap, stat, table, timeseries
from grafana_foundation_sdk.models.dashboard import Dashboard

from ..board import Row
from ..board import board as board_with
from ..panels import (
    COUNT,
    GREEN,
    ORANGE,
    PER_SECOND,
    RED,
    SECONDS,
    SHARE,
    heat_map,
    instant,
    joined_table,
    series,
    single,
    time_series,
)
from ..promql import (
    ENVIRONMENT,
    EVERYTHING_CHOSEN,
    ROUTE,
    SPARSE,
    WINDOW,
    quantile,
    rate,
    select,
    share,
    total,
)

CHANNEL = "messaging_destination_template"
PROJECT = ("service_namespace", "deployment_environment_name")
FLOW = "{{service_namespace}} {{deployment_environment_name}}"
IN_TIME = ('outcome="succeeded"', 'le="5.0"')
ALLOWED = "(1 - flow:objective:ratio)"
"""The share of flows that may be bad."""

ACTIVE = 'ALERTS{severity!="heartbeat"}'
NO_FLOWS = "No flow ended in this time range"
BURN_WINDOWS = ("5m", "1h", "6h", "3d")


def board() -> Dashboard:
    return board_with(
        "slo",
        "SLO",
        "Do flows succeed in time, from the first message to the end of the last handler, and how"
        " fast is the error budget spent?",
        Row(5, [good(), objective(), budget(), burn_now(), ended()], [5, 4, 5, 5, 5]),
        Row(8, [burn(), bad_flows()]),
        Row(8, [durations(), latency()]),
        Row(7, [by_destination(), against_usual(), alerts()]),
        since="now-1h",
    )


def ended_rate(window: str) -> str:
    """Flows that ended per second, with requests that were to begin one and failed."""
    return total(f"{rate(_chosen('count'), window)} or {refused(window)}", *PROJECT)


def refused(window: str = SPARSE) -> str:
    """Requests per second that got a server error instead of a first message, where flows are.

    They end at no destination, so choosing one leaves them out.
    """
    failed = select(
        "http_server_request_duration_seconds_count",
        *EVERYTHING_CHOSEN,
        'http_request_method!~"GET|HEAD|OPTIONS"',
        'http_response_status_code=~"5.."',
    )
    flows = select("messaging_flow_duration_seconds_count", ENVIRONMENT)
    return f"{rate(failed, window)} and on ({', '.join(PROJECT)}) last_over_time({flows}[1d])"


def bad(window: str) -> str:
    """The share of flows that failed or took too long."""
    in_time = total(rate(_chosen("bucket", *IN_TIME), window), *PROJECT)
    return f"(1 - {share(in_time, ended_rate(window))})"


def burn_rate(window: str) -> str:
    return f"{bad(window)} / on () group_left () {ALLOWED}"


def good() -> stat.Panel:
    return single(
        "Good flows, last hour",
        "The share of flows that succeeded in time, averaged over the last hour.",
        SHARE,
        instant(f"1 - {bad('1h')}", FLOW),
        empty=NO_FLOWS,
        thresholds=[(0, RED), (0.99, GREEN)],
        decimals=2,
    )


def objective() -> stat.Panel:
    return single(
        "Objective",
        "The share of flows that should succeed in time. It is set in the recording rules.",
        SHARE,
        instant("flow:objective:ratio", "objective"),
        empty="The recording rules are not loaded",
        thresholds=[(0, "dark-blue")],
        decimals=1,
    )


def budget() -> stat.Panel:
    return single(
        "Error budget left, 3 days",
        "The part left of the bad flows allowed in three days: 1 is all of it; below 0 the"
        " objective is missed.",
        SHARE,
        instant(f"1 - {burn_rate('3d')}", FLOW),
        empty=NO_FLOWS,
        thresholds=[(0, RED), (0.001, ORANGE), (0.25, GREEN)],
        decimals=0,
    )


def burn_now() -> stat.Panel:
    return single(
        "Burn rate, last hour",
        "How fast the error budget is spent: at 1 it lasts exactly its full period.",
        COUNT,
        instant(burn_rate("1h"), FLOW),
        empty=NO_FLOWS,
        thresholds=[(0, GREEN), (1, ORANGE), (14.4, RED)],
        decimals=1,
    )


def ended() -> stat.Panel:
    return single(
        "Flows ended",
        "Flows that ended per second, successful or not, averaged over five minutes.",
        PER_SECOND,
        instant(ended_rate("5m"), FLOW),
        empty=NO_FLOWS,
        thresholds=[(0, "dark-blue")],
        decimals=2,
    )


def burn() -> timeseries.Panel:
    return time_series(
        "Burn rate",
        "How fast the error budget is spent, over several windows: the short ones show that the"
        " problem continues, the long ones that it is significant. An alert needs both.",
        COUNT,
        *(series(burn_rate(window), f"{FLOW}, {window}") for window in BURN_WINDOWS),
        empty=NO_FLOWS,
        thresholds=[(1, ORANGE), (14.4, RED)],
    )


def bad_flows() -> timeseries.Panel:
    failed = _chosen("count", 'outcome="failed"')
    succeeded = _chosen("count", 'outcome="succeeded"')
    in_time = _chosen("bucket", *IN_TIME)
    late = f"{total(rate(succeeded), CHANNEL)} - {total(rate(in_time), CHANNEL)}"
    return time_series(
        "Bad flows, by where they ended",
        "Flows that failed, flows that succeeded too late (after more than five seconds), and"
        " requests that got a server error before their first message, per second.",
        PER_SECOND,
        series(total(rate(failed), CHANNEL), "{{messaging_destination_template}}, failed"),
        series(late, "{{messaging_destination_template}}, late"),
        series(
            total(refused(), *ROUTE),
            "{{service_name}} {{http_request_method}} {{http_route}}, failed",
        ),
        empty=NO_FLOWS,
    )


def durations() -> heatmap.Panel:
    return heat_map(
        "Duration of flows",
        "Flows, by how long they took from the first publish to the end of the last handler.",
        series(total(f"increase({_chosen('bucket')}[{WINDOW}])", "le"), "{{le}}"),
        empty=NO_FLOWS,
    )


def latency() -> timeseries.Panel:
    return time_series(
        "Duration of flows, percentiles",
        "From the first publish to the end of the last handler.",
        SECONDS,
        *(series(quantile(q, _chosen("bucket")), f"{q * 100:g} %") for q in (0.5, 0.95, 0.99)),
        empty=NO_FLOWS,
        thresholds=[(5, RED)],
    )


def by_destination() -> timeseries.Panel:
    return time_series(
        "All flows, by where they ended",
        "Flows that ended per second, by the destination of their last message and how they ended.",
        PER_SECOND,
        series(
            total(rate(_chosen("count")), CHANNEL, "outcome"),
            "{{messaging_destination_template}}, {{outcome}}",
        ),
        empty=NO_FLOWS,
    )


def against_usual() -> timeseries.Panel:
    return time_series(
        "Rate of flows, against the usual",
        "Flows that ended per second, averaged over 15 minutes, and the usual rate at this time of"
        " day: that of the same day a week before, or the median of seven days if that is lower."
        " The usual rate covers all services and destinations, and needs a week of history.",
        PER_SECOND,
        series(total(rate(_chosen("count"), "15m"), *PROJECT), f"{FLOW}, now"),
        # It lacks these labels, so that choosing a service or a destination leaves it out.
        series(select("flow:ended:usual_rate15m", *EVERYTHING_CHOSEN), f"{FLOW}, usual"),
        empty=NO_FLOWS,
    )


def alerts() -> table.Panel:
    return joined_table(
        "Alerts",
        "Prometheus alerts that are firing or pending, without the heartbeat, which always fires."
        " Each has a runbook: see Alerting.",
        {"alertname": "Alert", "severity": "Severity", "alertstate": "State"},
        {"Series": (COUNT, f"count by (alertname, severity, alertstate) ({ACTIVE})")},
        empty="No alert fires",
        sort_by="Series",
    )


def _chosen(part: str, *more: str) -> str:
    return select(f"messaging_flow_duration_seconds_{part}", *EVERYTHING_CHOSEN, *more)
