"""What all boards share: variables, links to each other, the sentence on top, the layout."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as model

from .panels import PREFIX, PROMETHEUS, Link, sentence

TAG = "faststream"
"""Every board with it stands in the list of links; give it to your own."""

SOURCES = {"prometheus": "Prometheus", "loki": "Loki", "traces": "Traces"}
"""The variables that choose data sources, and their labels."""

WIDTH = 24


@dataclass(frozen=True)
class Row:
    """Panels side by side."""

    height: int
    panels: Sequence[Builder[model.Panel]]
    widths: Sequence[int] = ()
    """Of 24; all the same unless said."""


def board(
    name: str,
    title: str,
    purpose: str,
    *rows: Row,
    since: str = "now-15m",
    extra_variables: Sequence[Builder[model.VariableModel]] = (),
    page: Link | None = None,
) -> model.Dashboard:
    """Return a board.

    Args:
        name: Part of its address: links and alerts of users name it, so it never changes.
        purpose: One sentence on what question it answers.
        since: Where its time range begins.
        page: A page elsewhere that it links to.
    """
    built = (
        dashboard.Dashboard(title)
        .uid(PREFIX + name)
        .description(purpose)
        .tags([TAG])
        .editable()
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .time(since, "now")
        .refresh("30s")
        .link(
            dashboard.DashboardLink("Boards")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .include_vars(True)
            .keep_time(True)
            .placement("")  # the SDK's choice hides it in a menu
        )
        .build()
    )
    if page:
        link = dashboard.DashboardLink(page["title"]).type(model.DashboardLinkType.LINK)
        built.links = [*(built.links or []), link.url(page["url"]).target_blank(True).build()]
    panels = list(_placed([Row(2, [sentence(purpose)]), *rows]))
    built.panels = [*panels]
    every = [*_source_variables(panels), *variables(), *extra_variables]
    built.templating = model.DashboardDashboardTemplating(list_val=[one.build() for one in every])
    return built


def _source_variables(panels: Sequence[model.Panel]) -> Iterator[dashboard.DatasourceVariable]:
    """One for each data source that the panels ask; by default the one that is provisioned.

    A Grafana without that one takes its first of the same kind.
    """
    kinds = {
        panel.datasource.uid: panel.datasource.type_val for panel in panels if panel.datasource
    }
    for name, label in SOURCES.items():
        kind = kinds.get(f"${{{name}}}")
        if kind:
            provisioned = model.VariableOption(
                selected=True, text=f"FastStream {label}", value=PREFIX + name
            )
            variable = dashboard.DatasourceVariable(name).label(label).type(kind)
            yield variable.current(provisioned).allow_custom_value(False)


def variables() -> list[Builder[model.VariableModel]]:
    calls = "traces_span_metrics_calls_total"
    chosen = 'deployment_environment_name=~"$environment"'
    return [
        _choice("environment", "Environment", calls, "deployment_environment_name"),
        _choice("service", "Service", f"{calls}{{{chosen}}}", "service_name"),
        _choice(
            "destination", "Destination", f"{calls}{{{chosen}}}", "messaging_destination_template"
        ),
    ]


def _choice(name: str, label: str, series: str, values_of: str) -> dashboard.QueryVariable:
    return (
        label_values(name, label, series, values_of)
        .multi(True)
        .include_all(True)
        .all_value(".*")  # the regular expression that a series without the label matches too
        .current(model.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def label_values(name: str, label: str, series: str, values_of: str) -> dashboard.QueryVariable:
    """A variable that takes one of the values that a label has; by itself the first."""
    query = f"label_values({series}, {values_of})"
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(PROMETHEUS)
        .query(
            {"qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"}
        )
        .definition(query)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
    )


def _placed(rows: Sequence[Row]) -> Iterator[model.Panel]:
    top = 0
    for row in rows:
        left = 0
        widths = row.widths or [WIDTH // len(row.panels)] * len(row.panels)
        for builder, width in zip(row.panels, widths, strict=True):
            panel = builder.build()
            panel.grid_pos = model.GridPos(x=left, y=top, w=width, h=row.height)
            yield panel
            left += width
        assert left == WIDTH, f"panels side by side are {left} wide, not {WIDTH}"
        top += row.height
