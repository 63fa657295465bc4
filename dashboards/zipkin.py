"""Panels over traces that Zipkin keeps. Its data source reads a trace by its id and searches for
none, so the lists are made of what else knows the ids of traces: log records and exemplars."""

from grafana_foundation_sdk.models import common as common_model

from . import red
from .panels import log_lines
from .tracestore import UID, Panel, TraceStore, no_linked_traces, trace_panel

ZIPKIN = common_model.DataSourceRef(type_val="zipkin", uid=UID)


class Zipkin(TraceStore):
    page = {"title": "Zipkin", "url": "http://127.0.0.1:9411/zipkin/"}  # noqa: RUF012 (never changed)

    def newest_traces(self) -> Panel:
        return log_lines(
            "Newest traces",
            "What the newest traces logged: Grafana cannot search Zipkin, but Zipkin's own page"
            " can. Open a line to open its trace on this board.",
            '{service_name=~".+", service_name=~"$service"}'
            ' | deployment_environment_name=~"$environment" | trace_id!=""',
            empty="No trace logged anything in this time range",
        )

    def traces_of_service(self) -> Panel:
        """Beside the logs of the service, which would be the same list: samples of durations."""
        return red.durations()

    def trace(self) -> Panel:
        return trace_panel(
            ZIPKIN,
            {"queryType": "traceID"},
            links=(
                "the logs of its trace, and to the metrics of spans with its name, in all services"
                " of its namespace"
            ),
        )

    def linked_traces(self) -> Panel:
        return no_linked_traces("Zipkin")
