"""Panels and queries as all boards have them: one look, a description and an empty state each."""

from collections.abc import Mapping, Sequence

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    heatmap,
    logs,
    loki,
    nodegraph,
    prometheus,
    stat,
    table,
    text,
    timeseries,
)
from grafana_foundation_sdk.models import common as common_model
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import heatmap as heatmap_model
from grafana_foundation_sdk.models import prometheus as prometheus_model

PREFIX = "faststream-"
"""What the uids of boards and data sources begin with, so that they fit into any Grafana."""

# Variables of the boards, so that each Grafana fills in data sources of its own.
PROMETHEUS = common_model.DataSourceRef(type_val="prometheus", uid="${prometheus}")
LOKI = common_model.DataSourceRef(type_val="loki", uid="${loki}")

PER_SECOND = "suffix:/s"
SECONDS = "s"
SHARE = "percentunit"
COUNT = "short"
BYTES = "bytes"

GREEN, YELLOW, ORANGE, RED = "green", "yellow", "orange", "red"

NO_TRAFFIC = "No traffic in this time range"
NO_SPAN_METRICS = (
    "No traffic in this time range, or no span metrics: the Collector's connector span_metrics"
    " makes them, see docs/joining.md"
)
"""Of panels that ask for them: Grafana cannot tell the two reasons apart."""
NO_SERVICE_GRAPH = NO_SPAN_METRICS.replace("span_metrics", "service_graph")

KEPT = "${environment:queryparam}&${prometheus:queryparam}&${__url_time_range}"
"""What a link from any board to another leaves as it is."""

LINKS = {
    "service_name": {
        "title": "Open the Service board",
        "url": f"/d/{PREFIX}service?var-service=${{__value.raw}}&{KEPT}",
    },
    "messaging_destination_template": {
        "title": "Open the Messaging board",
        "url": f"/d/{PREFIX}messaging?var-destination=${{__value.raw}}&{KEPT}",
    },
}
"""Where a value in a table leads, by its label."""

SHORT = {"severity", "alertstate"}
"""Labels whose values are short."""

Thresholds = Sequence[tuple[float, str]]
Link = dict[str, str]
"""Of a field's value; the SDK has only the kind that a whole dashboard has."""


def series(expr: str, legend: str, *, exemplars: bool = False) -> prometheus.Dataquery:
    """A query over the time range."""
    query = prometheus.Dataquery().expr(expr).legend_format(legend).range().datasource(PROMETHEUS)
    return query.exemplar(True) if exemplars else query


def instant(expr: str, legend: str = "") -> prometheus.Dataquery:
    """A query for one value per series, at the end of the time range."""
    return prometheus.Dataquery().expr(expr).legend_format(legend).instant().datasource(PROMETHEUS)


def rows(expr: str) -> prometheus.Dataquery:
    """A query for a table: one row per series."""
    return instant(expr).format(prometheus_model.PromQueryFormat.TABLE)


def time_series(
    title: str,
    description: str,
    unit: str,
    *queries: prometheus.Dataquery,
    empty: str = NO_TRAFFIC,
    thresholds: Thresholds = (),
    stacked: bool = False,
    most: float | None = None,
) -> timeseries.Panel:
    """Lines over time.

    Args:
        empty: What is said in place of lines when there are none.
        thresholds: Values, each with the colour of its line.
        stacked: Whether the lines add up.
        most: The top of the axis. Otherwise that of shares is 5 % or more, since Grafana draws an
            axis up to 10,000 % where all are zero.
    """
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .unit(unit)
        .min(0)
        .no_value(empty)
        .fill_opacity(30 if stacked else 8)
        .show_points(common_model.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(common_model.LegendDisplayMode.LIST)
            .placement(common_model.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_model.TooltipDisplayMode.MULTI)
            .sort(common_model.SortOrder.DESCENDING)
        )
    )
    if most is not None:
        panel.max(most)
    elif unit == SHARE:
        panel.axis_soft_max(0.05)
    if stacked:
        panel.stacking(common.StackingConfig().mode(common_model.StackingMode.NORMAL).group("A"))
    if thresholds:
        panel.thresholds(_steps(thresholds)).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(common_model.GraphThresholdsStyleMode.DASHED)
        )
    for ref, query in zip("ABCDEFGH", queries, strict=False):
        panel.with_target(query.ref_id(ref))
    return panel


def counts(
    title: str, description: str, query: prometheus.Dataquery, *, empty: str
) -> timeseries.Panel:
    """Bars that count rare events: those of a minute each, or of more in a long time range."""
    panel = time_series(title, description, COUNT, query, empty=empty, stacked=True)
    return panel.interval("1m").draw_style(common_model.GraphDrawStyle.BARS).fill_opacity(80)


def single(
    title: str,
    description: str,
    unit: str,
    query: prometheus.Dataquery,
    *,
    empty: str = NO_TRAFFIC,
    thresholds: Thresholds = (),
    words: Mapping[str, tuple[str, str]] | None = None,
    decimals: int | None = None,
) -> stat.Panel:
    """One number, or one per series, coloured by its thresholds.

    Args:
        thresholds: Values, each with the colour from there on; the first one's counts from minus
            infinity.
        words: A text and a colour in place of a value.
    """
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .unit(unit)
        .no_value(empty)
        .graph_mode(common_model.BigValueGraphMode.NONE)
        .color_mode(common_model.BigValueColorMode.BACKGROUND)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .with_target(query.ref_id("A"))
    )
    if thresholds:
        panel.thresholds(_steps(thresholds, below_first=thresholds[0][1]))
    if words:
        results = {
            value: model.ValueMappingResult(text=word, color=color, index=index)
            for index, (value, (word, color)) in enumerate(words.items())
        }
        panel.mappings([model.ValueMap(options=results)])
    if decimals is not None:
        panel.decimals(decimals)
    return panel


def heat_map(
    title: str, description: str, query: prometheus.Dataquery, *, empty: str = NO_TRAFFIC
) -> heatmap.Panel:
    """How many took how long, over time; the query gives a histogram's buckets by `le`."""
    return (
        heatmap.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .no_value(empty)
        .calculate(False)
        .cell_gap(1)
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heatmap_model.HeatmapColorMode.SCHEME)
            .scheme("Oranges")
            .scale(heatmap_model.HeatmapColorScale.EXPONENTIAL)
            .exponent(0.5)
            .steps(64)
            .fill("dark-orange")
        )
        .filter_values(heatmap.FilterValueRange().le(1e-9))
        .y_axis(heatmap.YAxisConfig().unit(SECONDS).axis_placement(common_model.AxisPlacement.LEFT))
        .cell_values(heatmap.CellValues().unit(COUNT))
        .tooltip(
            heatmap.HeatmapTooltip().mode(common_model.TooltipDisplayMode.SINGLE).y_histogram(True)
        )
        .exemplars_color("rgba(255,255,255,0.8)")
        .show_legend()
        .unit(COUNT)
        .with_target(
            query.format(prometheus_model.PromQueryFormat.HEATMAP)
            .legend_format("{{le}}")
            .ref_id("A")
        )
    )


def joined_table(
    title: str,
    description: str,
    labels: Mapping[str, str],
    columns: Mapping[str, tuple[str, str]],
    *,
    empty: str = NO_TRAFFIC,
    sort_by: str,
) -> table.Panel:
    """One row per set of labels, one column per query.

    Args:
        labels: What each label is called, in their order; services and channels lead to their
            boards.
        columns: Unit and PromQL by what the column is called, in their order.
        sort_by: The column that begins with the highest value.
    """
    refs = dict(zip(columns, "ABCDEFGH", strict=False))
    # One query alone gives its column a plain name.
    values = {f"Value #{ref}" if len(refs) > 1 else "Value": name for name, ref in refs.items()}
    order = [*labels, *values]
    panel = (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .no_value(empty)
        .with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(
            model.DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": {"Time": True},
                    "indexByName": {name: index for index, name in enumerate(order)},
                    "renameByName": {**labels, **values},
                },
            )
        )
        .min_width(60)  # columns share what there is; the default of 150 pushes the last ones out
        .override_by_regexp("/.*/", [property_of("noValue", "-")])
        .sort_by([common.TableSortByFieldState().display_name(sort_by).desc(True)])
    )
    for label, name in labels.items():
        if label in LINKS:
            panel.override_by_name(name, [property_of("links", [LINKS[label]])])
        if label in SHORT:  # leaves room for the long values beside it
            panel.override_by_name(name, [property_of("custom.width", 75)])
    for name, (unit, expr) in columns.items():
        panel.with_target(rows(expr).ref_id(refs[name]))
        panel.override_by_name(
            name,
            [
                property_of("unit", unit),
                property_of("custom.align", "right"),
                property_of("custom.width", 125),
            ],
        )
    return panel


class Graph(nodegraph.Panel):
    """A node graph whose layers go from left to right, 160 pixels each, so that long chains fit.

    The other layout is wider, and this one is the default only of newer Grafanas. The SDK lacks the
    option.
    """

    def build(self) -> model.Panel:
        panel = super().build()
        panel.options = {"layoutAlgorithm": "layered"}
        return panel


def graph(
    title: str,
    description: str,
    nodes: str,
    edges: str,
    *,
    empty: str,
    legend: Mapping[str, str],
) -> nodegraph.Panel:
    """Nodes and edges, each from one query whose labels are the fields.

    Args:
        nodes: With the labels id, title, subtitle, mainstat, secondarystat, color.
        edges: With the labels id, source, target, mainstat, secondarystat, color.
        legend: What these labels are called where the panel names them.
    """
    return (
        Graph()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .no_value(empty)
        .with_target(rows(nodes).ref_id("nodes"))
        .with_target(rows(edges).ref_id("edges"))
        # By a transformation, since the panel takes no override of a name.
        .with_transformation(
            model.DataTransformerConfig(id_val="organize", options={"renameByName": dict(legend)})
        )
    )


def log_lines(title: str, description: str, expr: str, *, empty: str) -> logs.Panel:
    """Log records, the newest first; each opens to its fields, the link to its trace among them."""
    return (
        logs.Panel()
        .title(title)
        .description(description)
        .datasource(LOKI)
        .no_value(empty)
        .show_time(True)
        .wrap_log_message(True)
        .enable_log_details(True)
        .sort_order(common_model.LogsSortOrder.DESCENDING)
        .dedup_strategy(common_model.LogsDedupStrategy.NONE)
        .with_target(
            loki.Dataquery().expr(expr).query_type("range").max_lines(200)
            .datasource(LOKI).ref_id("A")
        )
    )  # fmt: skip


def sentence(content: str) -> text.Panel:
    """What a board is for."""
    return text.Panel().title("").transparent(True).content(content)


def property_of(name: str, value: object) -> model.DynamicConfigValue:
    return model.DynamicConfigValue(id_val=name, value=value)


def _steps(
    thresholds: Thresholds, *, below_first: str = "transparent"
) -> dashboard.ThresholdsConfig:
    steps = [model.Threshold(color=below_first)]
    steps += [model.Threshold(value=value, color=color) for value, color in thresholds]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)
