"""Panels over traces that Tempo keeps, by TraceQL."""

from grafana_foundation_sdk.builders import dashboard, table, tempo
from grafana_foundation_sdk.models import common as common_model
from grafana_foundation_sdk.models import dashboard as dashboard_model
from grafana_foundation_sdk.models import tempo as tempo_model

from .panels import property_of
from .tracestore import TRACE_ID, UID, Panel, TraceStore, open_trace

TEMPO = common_model.DataSourceRef(type_val="tempo", uid=UID)


def chosen(attribute: str, variable: str) -> str:
    """A condition on a span. "All" takes spans without the attribute too, as no pattern would."""
    return f'("${{{variable}:pipe}}" = ".*" || {attribute} =~ "${{{variable}:pipe}}")'


NEWEST = " && ".join(
    [
        'resource.service.name =~ "${service:pipe}"',
        chosen("resource.deployment.environment.name", "environment"),
        chosen("span.messaging.destination.template", "destination"),
    ]
)


class Tempo(TraceStore):
    no_trace = '{ trace:id = "click one" }'

    def newest_traces(self) -> Panel:
        newest = _table(
            "Newest traces",
            "The newest traces with a span of what is chosen above, as soon as they are ten"
            " seconds old. A click on a row opens the trace on the Traces board.",
            f"{{ {NEWEST} }} with (most_recent=true)",
            empty="No trace in this time range: send a request, or widen the range",
        )
        # Services send their spans every five seconds: earlier, traces would lack their roots.
        return newest.time_shift("10s").hide_time_override(True)

    def trace(self) -> Panel:
        return (
            dashboard.Panel()
            .type("traces")
            .title("Trace")
            .description(
                "The trace that was clicked in a table of traces. A span's own links lead to the"
                " logs of its service in this trace, to the metrics of its service's spans of this"
                " name and to the spans that it is linked with."
            )
            .datasource(TEMPO)
            .no_value("Click a trace in a table of this board")
            .with_target(
                tempo.Dataquery()
                .query_type("traceql")
                .query(f"${TRACE_ID}")
                .limit(20)
                .datasource(TEMPO)
                .ref_id("A")
            )
        )

    def linked_traces(self) -> Panel:
        return _table(
            "Traces that link to it",
            "Traces that were caused by the open one and yet have a root of their own: batches and"
            " replays. A click on a row opens the trace.",
            # By equality, since a pattern finds none; Tempo writes ids in tables as it compares
            # them, without the zeros that they begin with.
            f"{{ link:traceID = `${TRACE_ID}` }}",
            empty="No trace links to the open one",
        )


def _width(pixels: int) -> dashboard_model.DynamicConfigValue:
    return property_of("custom.width", pixels)


def _table(title: str, description: str, query: str, *, empty: str) -> table.Panel:
    """A table of traces; every cell of a row leads to its trace."""
    return (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(TEMPO)
        .no_value(empty)
        # An override, because the data source links the trace id to a page away from the board.
        .override_by_regexp(
            "/.*/",
            [property_of("links", [open_trace("traceID")]), property_of("noValue", "-")],
        )
        .override_by_name("traceDuration", [property_of("noValue", "< 1 ms"), _width(90)])
        .override_by_name("traceID", [_width(90)])
        .override_by_name("startTime", [_width(160)])
        .with_target(
            tempo.Dataquery()
            .query_type("traceql")
            .query(query)
            .table_type(tempo_model.SearchTableType.TRACES)
            .limit(20)
            .datasource(TEMPO)
            .ref_id("A")
        )
    )
