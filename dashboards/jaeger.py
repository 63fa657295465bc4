"""Panels over traces that Jaeger keeps, by the search of its data source: by one service's name."""

from collections.abc import Sequence

from grafana_foundation_sdk.builders import table
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as common_model
from grafana_foundation_sdk.models import dashboard as model

from .board import label_values
from .panels import property_of
from .promql import CALLS, ENVIRONMENT, SERVICE, select
from .tracestore import (
    UID,
    Panel,
    StoreQuery,
    TraceStore,
    no_linked_traces,
    open_trace,
    trace_panel,
)

JAEGER = common_model.DataSourceRef(type_val="jaeger", uid=UID)
SEARCHED = "traces_of"
"""The variable with the one service that is searched for: Jaeger takes no pattern, and no list."""


class Jaeger(TraceStore):
    page = {"title": "Jaeger", "url": "http://127.0.0.1:16686"}  # noqa: RUF012 (never changed)

    def variables(self) -> Sequence[Builder[model.VariableModel]]:
        chosen = select(CALLS, SERVICE, ENVIRONMENT)
        return [label_values(SEARCHED, "Traces of", chosen, "service_name")]

    def newest_traces(self) -> Panel:
        return (
            table.Panel()
            .title("Newest traces")
            .description(
                "The newest traces with a span of the service chosen above in Traces of. Click a"
                " row to open the trace on the Traces board."
            )
            .datasource(JAEGER)
            .no_value("No trace of this service in this time range")
            # An override, because the data source links the trace id to a page away from the board.
            .override_by_regexp(
                "/.*/",
                [
                    property_of("links", [open_trace("traceID", SEARCHED)]),
                    property_of("noValue", "-"),
                ],
            )
            .with_target(
                StoreQuery(JAEGER, {"queryType": "search", "service": f"${SEARCHED}", "limit": 20})
            )
        )

    def trace(self) -> Panel:
        return trace_panel(
            JAEGER,
            {},
            links=(
                "the logs of its trace, to the metrics of spans with its name, in all services of"
                " its namespace, and to the spans that it is linked to"
            ),
        )

    def linked_traces(self) -> Panel:
        return no_linked_traces("Jaeger")
