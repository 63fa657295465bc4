"""What the boards want of whatever keeps the traces; each answer to that question has a module."""

from typing import Protocol

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as model

from .panels import Link

Panel = Builder[model.Panel]

TRACE_ID = "traceId"
"""The variable that says which trace is open on the Traces board."""


class TraceStore(Protocol):
    no_trace: str
    """A query that finds nothing, to stand in for the id of the open trace."""

    def newest_traces(self) -> Panel:
        """A table of traces of what is chosen; a click on a row opens the trace."""

    def trace(self) -> Panel:
        """The open trace, as a waterfall."""

    def linked_traces(self) -> Panel:
        """A table of the traces that link to the open one."""

    def ingestion(self) -> Panel:
        """Spans that the store takes."""


def trace_id_variable(nothing: str) -> dashboard.TextBoxVariable:
    """The field that holds the id of the open trace; a click fills it, and so does pasting.

    Args:
        nothing: What stands there as long as no trace is open. As a query of the trace store it
            finds nothing, where no text at all would be an error.
    """
    option = model.VariableOption(selected=True, text=nothing, value=nothing)
    return (
        dashboard.TextBoxVariable(TRACE_ID)
        .label("Trace")
        .default_value(nothing)
        .current(option)
        .options([option])
    )


def open_trace(trace_id: str) -> Link:
    """A link that opens a trace on the Traces board and leaves what is chosen as it is.

    Args:
        trace_id: The field of the row that holds it.
    """
    return {
        "title": "Open this trace",
        "url": "/d/traces?${environment:queryparam}&${service:queryparam}&${destination:queryparam}"
        f"&${{__url_time_range}}&var-{TRACE_ID}=${{__data.fields.{trace_id}}}",
    }
