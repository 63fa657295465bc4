"""What the boards want of whatever keeps the traces; each answer to that question has a module."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from grafana_foundation_sdk.builders import dashboard, text
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.runtime import UnknownDataquery
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common as common_model
from grafana_foundation_sdk.models import dashboard as model

from .board import SOURCES
from .panels import PREFIX, Link

Panel = Builder[model.Panel]

TRACE_ID = "traceId"
"""The variable that says which trace is open on the Traces board."""

UID = "${traces}"
"""Of the data source, whatever keeps the traces: a variable of the boards that ask it."""

NO_TRACE = f"{1:032x}"
"""A trace id that nobody has."""


class TraceStore(Protocol):
    no_trace: str = NO_TRACE
    """A query that finds nothing, to stand in for the id of the open trace."""
    page: Link | None = None
    """The store's own page, if it has one, on the port that it has by default."""

    def variables(self) -> Sequence[Builder[model.VariableModel]]:
        """The variables that its panels need, over and above what all boards have."""
        return ()

    def newest_traces(self) -> Panel:
        """A list of traces of what is chosen; a click on a row leads to the trace."""

    def traces_of_service(self) -> Panel:
        """The same beside a service's logs."""
        return self.newest_traces()

    def trace(self) -> Panel:
        """The open trace, as a waterfall."""

    def linked_traces(self) -> Panel:
        """The traces that link to the open one, or how to find them."""


def trace_panel(
    source: common_model.DataSourceRef, query: Mapping[str, object], *, links: str
) -> dashboard.Panel:
    """The open trace, for any data source whose answer Grafana draws as a waterfall.

    Args:
        query: What the data source is asked, over and above the id of the trace.
        links: Where the links of a span lead.
    """
    return (
        dashboard.Panel()
        .type("traces")
        .title("Trace")
        .description(
            "The trace that was clicked in a list of traces. As long as none was, the store says"
            f" that it knows no such trace: 404. A span's own links lead to {links}."
        )
        .datasource(source)
        .no_value("Click a trace in a list of this board")
        .with_target(StoreQuery(source, {"query": f"${TRACE_ID}", **query}))
    )


def no_linked_traces(store: str) -> text.Panel:
    """In the place of a list of traces that link to the open one, where the store has none."""
    return (
        text.Panel()
        .title("Traces that link to it")
        .content(
            f"{store} does not search by links. A trace that was caused by this one and yet has a"
            " root of its own, such as a batch or a replay, shows its links in its own spans. In a"
            " terminal `make trace ARGS=<trace id>` draws it beneath this one."
        )
    )


class StoreQuery(Builder[Dataquery]):
    """A query of a data source that the SDK has no builder for."""

    def __init__(self, source: common_model.DataSourceRef, query: Mapping[str, object]) -> None:
        self._query = UnknownDataquery({"refId": "A", "datasource": source, **query})

    def build(self) -> Dataquery:
        return self._query


def trace_id_variable(nothing: str) -> dashboard.CustomVariable:
    """The field that holds the id of the open trace; a click fills it, and so does pasting.

    Args:
        nothing: Stands in for the id as long as no trace is open, and reads "none". As a query of
            the trace store it finds nothing, where no text at all would be an error.
    """
    option = model.VariableOption(selected=True, text="none", value=nothing)
    return (
        dashboard.CustomVariable(TRACE_ID)
        .label("Trace")
        .values(f"{option.text} : {option.value}")
        .current(option)
        .options([option])
        .allow_custom_value(True)
    )


def open_trace(trace_id: str, *variables: str) -> Link:
    """A link that opens a trace on the Traces board and leaves what is chosen as it is.

    Args:
        trace_id: The field of the row that holds it.
        variables: Those of the store, over and above what all boards have.
    """
    kept = "&".join(
        f"${{{name}:queryparam}}"
        for name in ("environment", "service", "destination", *SOURCES, *variables)
    )
    return {
        "title": "Open this trace",
        "url": f"/d/{PREFIX}traces?{kept}&${{__url_time_range}}"
        f"&var-{TRACE_ID}=${{__data.fields.{trace_id}}}",
    }
