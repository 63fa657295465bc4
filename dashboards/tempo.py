"""Panels over traces that Tempo keeps, by TraceQL."""

from grafana_foundation_sdk.builders import dashboard, table, tempo
from grafana_foundation_sdk.models import common as common_model
from grafana_foundation_sdk.models import dashboard as dashboard_model
from grafana_foundation_sdk.models import tempo as tempo_model

from .panels import GREEN, RED, property_of
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
    no_trace = "{ false }"

    def newest_traces(self) -> Panel:
        newest = _table(
            "Newest traces",
            "The newest traces with a span that matches the choice above, once they are ten"
            " seconds old. Spans and status are those of the whole trace. Click a row to open the"
            " trace on the Traces board.",
            f"{{ {NEWEST} }} && {OF_THE_TRACE} with (most_recent=true)",
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
                "The trace that you clicked in a table of traces. The links of a span lead to the"
                " logs of its service in this trace, to the metrics of its service's spans with"
                " this name, and to the spans that it is linked to."
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
            "Traces that the open one caused but that have a root of their own: batches and"
            " replays. Click a row to open the trace.",
            # By equality, since a pattern finds none; Tempo writes ids in tables as it compares
            # them, without the zeros that they begin with.
            f"{{ link:traceID = `${TRACE_ID}` }} && {OF_THE_TRACE}",
            empty="No trace links to the open one",
        )


def _table(title: str, description: str, query: str, *, empty: str) -> table.Panel:
    """A table of traces; every cell of a row leads to its trace.

    Tempo's own table of traces has neither the number of spans nor a status. So Tempo is asked for
    one span that has an error, and one that has none, of each trace, both with what is known of all
    its spans; here the two become one row.
    """
    return (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(TEMPO)
        .no_value(empty)
        .min_width(60)
        .with_target(
            tempo.Dataquery()
            .query_type("traceql")
            .query(query)
            .table_type(tempo_model.SearchTableType.SPANS)
            .limit(20)
            .spss(1)
            .datasource(TEMPO)
            .ref_id("A")
        )
        .with_transformation(_transformation("convertFieldType", conversions=_NUMBERS))
        .with_transformation(
            _transformation(
                "groupBy",
                fields={
                    "traceIdHidden": {"operation": "groupby", "aggregations": []},
                    **{
                        field: {"operation": "aggregate", "aggregations": [how]}
                        for field, how, _ in _COLUMNS
                    },
                },
            )
        )
        .with_transformation(
            _transformation(
                "organize",
                indexByName={
                    f"{field} ({how})": index for index, (field, how, _) in enumerate(_COLUMNS)
                },
                renameByName={f"{field} ({how})": name for field, how, name in _COLUMNS},
            )
        )
        .override_by_regexp(
            "/.*/",
            [property_of("links", [open_trace("traceIdHidden")]), property_of("noValue", "-")],
        )
        .override_by_name("traceIdHidden", [property_of("custom.hidden", True)])
        .override_by_name(
            "Time", [property_of("custom.width", 140), property_of("unit", "time:MM-DD HH:mm:ss")]
        )
        .override_by_name("Duration", [*_right(90), property_of("mappings", [_DURATION])])
        .override_by_name("Spans", _right(60))
        .override_by_name("Status", [property_of("custom.width", 70), *_STATUS])
    )


OF_THE_TRACE = "{ } | max(trace:duration) >= 0s | count() > 0 | by(status = error)"
_COLUMNS = [
    ("Start time", "firstNotNull", "Time"),
    ("Trace Service", "firstNotNull", "Service"),
    ("Trace Name", "firstNotNull", "Operation"),
    ("max(traceDuration)", "firstNotNull", "Duration"),
    ("count()", "max", "Spans"),
    ("by(status = error)", "max", "Status"),
]
"""Field, which of a trace's values is taken, and what the column is called."""
_NUMBERS = [
    {"targetField": field, "destinationType": "number"}
    for field in ("count()", "by(status = error)")
]
# Tempo writes durations with all their digits: 12.345678ms.
_DURATION = dashboard_model.RegexMap(
    options=dashboard_model.DashboardRegexMapOptions(
        pattern=r"^(\d+(?:m\d+)?)(?:\.\d+)?(\D+)$",
        result=dashboard_model.ValueMappingResult(text="$1 $2"),
    )
)
_STATUS = [
    property_of("custom.cellOptions", {"type": "color-text"}),
    property_of(
        "mappings",
        [
            dashboard_model.ValueMap(
                options={
                    "1": dashboard_model.ValueMappingResult(text="error", color=RED),
                    "0": dashboard_model.ValueMappingResult(text="ok", color=GREEN),
                }
            ),
            dashboard_model.SpecialValueMap(
                options=dashboard_model.DashboardSpecialValueMapOptions(
                    match=dashboard_model.SpecialValueMatch.NULL_AND_NAN,
                    result=dashboard_model.ValueMappingResult(text="ok", color=GREEN),
                )
            ),
        ],
    ),
]


def _right(width: int) -> list[dashboard_model.DynamicConfigValue]:
    return [property_of("custom.width", width), property_of("custom.align", "right")]


def _transformation(name: str, **options: object) -> dashboard_model.DataTransformerConfig:
    return dashboard_model.DataTransformerConfig(id_val=name, options=options)
