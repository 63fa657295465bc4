"""Who talks to whom: services and channels as nodes, and services alone.

A node graph reads its fields from two tables, each the answer to one query: labels become fields.
PromQL makes those labels, also those that hold a number: `count_values` turns values into labels.
An edge to a node that is not there is an error of the whole panel, so both queries leave out what
was idle, and whatever has an edge above zero is itself a node above zero.
"""

from collections.abc import Mapping

from grafana_foundation_sdk.builders import nodegraph, table
from grafana_foundation_sdk.models.dashboard import Dashboard

from ..board import Row
from ..board import board as board_with
from ..panels import (
    KEPT,
    NO_SERVICE_GRAPH,
    NO_SPAN_METRICS,
    PER_SECOND,
    PREFIX,
    SECONDS,
    SHARE,
    graph,
    joined_table,
    property_of,
)
from ..promql import (
    CALLS,
    DESTINATION,
    DURATION,
    ENTRY,
    ENVIRONMENT,
    EVERYTHING_CHOSEN,
    FAILED,
    RANGE,
    quantile,
    rate,
    select,
    share,
    total,
)

SERVICE = "service_name"
CHANNEL = "messaging_destination_template"
GROUP = "messaging_consumer_group_name"

SENDS = 'messaging_operation_type="send"'
PROCESSES = 'messaging_operation_type="process"'
MESSAGES = 'messaging_operation_type=~"send|process"'
MESSAGES_AND_REQUESTS = 'span_kind=~"SPAN_KIND_(SERVER|CONSUMER|PRODUCER)"'
DELAY = select("messaging_receive_delay_seconds_bucket", *EVERYTHING_CHOSEN)
RECEIVED = select("messaging_receive_delay_seconds_count", *EVERYTHING_CHOSEN)

# The panel takes any colour of HTML; these are Grafana's own.
GREEN, ORANGE, RED = "#73BF69", "#FF9830", "#F2495C"
MUCH = 0.05
"""From which share of failures on a node or an edge is red."""
COLOURS = f"Ring: green none failed, orange some, red {100 * MUCH:g} % or more"

CONSUMER = (SERVICE, CHANNEL, GROUP)
PUBLISHER = (SERVICE, CHANNEL)


def board() -> Dashboard:
    return board_with(
        "topology",
        "Topology",
        "Which service publishes to which channel, who consumes it, and where do messages fail or"
        " wait? Rates are averages over the time range; hover over a node to read its edges.",
        Row(17, [services_and_channels()]),
        Row(7, [publishers()]),
        Row(7, [consumers()]),
        Row(12, [services()]),
    )


def services_and_channels() -> nodegraph.Panel:
    return _linked(
        graph(
            "Services and channels",
            "Services publish to channels; every consumer group of a channel gets its messages. On"
            " a service: requests and messages per second, and the share that failed; on a channel:"
            " messages per second, and how many wait. On an edge: messages per second, the share"
            " that failed and the 95th percentile of the time in the channel. Orange: some failed;"
            " red: 5 % or more.",
            nodes=f"{_service_nodes()}\nor\n{_channel_nodes()}",
            edges=f"{_publish_edges()}\nor\n{_consume_edges()}",
            empty=NO_SPAN_METRICS,
            legend={
                "mainstat": "Messages and requests per second",
                "secondarystat": "What failed or waits",
                "color": COLOURS,
            },
        )
    )


def services() -> nodegraph.Panel:
    return _linked(
        graph(
            "Services",
            "Which services' spans are parents of which other services' spans: the service graph,"
            " paired span by span. Whatever only links to its cause, such as a batch, is only in"
            " the graph above.",
            nodes=_graph_nodes(),
            edges=_graph_edges(),
            empty=NO_SERVICE_GRAPH,
            legend={
                "mainstat": "Requests and messages per second",
                "secondarystat": "95th percentile of the duration",
                "color": COLOURS,
            },
        )
    )


def publishers() -> table.Panel:
    sent = total(_calls(SENDS), *PUBLISHER)
    durations = select(DURATION, *EVERYTHING_CHOSEN, SENDS)
    return joined_table(
        "Who publishes",
        "Each edge from a service to a channel. p95: the 95th percentile of the time to send.",
        {SERVICE: "Service", CHANNEL: "Channel"},
        {
            "Rate": (PER_SECOND, sent),
            "p95 sending": (SECONDS, _p95(durations, *PUBLISHER)),
        },
        empty=NO_SPAN_METRICS,
        sort_by="Rate",
    )


def consumers() -> table.Panel:
    processed = total(_calls(PROCESSES), *CONSUMER)
    durations = select(DURATION, *EVERYTHING_CHOSEN, PROCESSES)
    return joined_table(
        "Who consumes",
        "Each edge from a channel to a consumer group of a service. A batch is processed, and"
        " fails, as one. p95: the 95th percentiles of the time in the channel and of the processing"
        " time.",
        {CHANNEL: "Channel", GROUP: "Consumer group", SERVICE: "Service"},
        {
            "Rate": (PER_SECOND, total(rate(RECEIVED, RANGE), *CONSUMER)),
            "Failed": (SHARE, share(total(_calls(PROCESSES, FAILED), *CONSUMER), processed)),
            "p95 waiting": (SECONDS, _p95(DELAY, *CONSUMER)),
            "p95 processing": (SECONDS, _p95(durations, *CONSUMER)),
        },
        empty=NO_SPAN_METRICS,
        sort_by="Rate",
    )


def _service_nodes() -> str:
    """Whatever is asked, processes or publishes."""
    entries = total(_calls(ENTRY), SERVICE)
    active = f"({total(_calls(MESSAGES_AND_REQUESTS), SERVICE)} > 0)"
    failed = share(total(_calls(ENTRY, FAILED), SERVICE), entries)
    nodes = _counted(f"{entries} > 0 or {active}", "mainstat", SERVICE)
    nodes = _say(
        nodes,
        "secondarystat",
        f"round(100 * {failed}, 0.1)",
        {"(.+)": "$1 % failed"},
        SERVICE,
        every=active,
    )
    nodes = _coloured(nodes, failed, SERVICE, every=active)
    return _node(nodes, "service", SERVICE, board="service", variable="service")


def _channel_nodes() -> str:
    """Whatever is published to or consumed from."""
    sent, processed = total(_calls(SENDS), CHANNEL), total(_calls(PROCESSES), CHANNEL)
    active = f"({total(_calls(MESSAGES), CHANNEL)} > 0)"
    failed = share(total(_calls(PROCESSES, FAILED), CHANNEL), processed)
    waiting = total(select("messaging_consumer_lag", DESTINATION, ENVIRONMENT), CHANNEL)
    nodes = _counted(f"{sent} > 0 or {active}", "mainstat", CHANNEL)
    nodes = _say(nodes, "secondarystat", waiting, {"(.+)": "$1 waiting"}, CHANNEL, every=active)
    nodes = _coloured(nodes, failed, CHANNEL, every=active)
    return _node(nodes, "channel", CHANNEL, board="messaging", variable="destination")


def _publish_edges() -> str:
    sent = f"({total(_calls(SENDS), *PUBLISHER)} > 0)"
    failed = share(total(_calls(SENDS, FAILED), *PUBLISHER), sent)
    edges = _rate_and_failed(sent, failed, *PUBLISHER)
    return _edge(edges, ("service:$1", SERVICE), ("channel:$1", CHANNEL))


def _consume_edges() -> str:
    processed = f"({total(_calls(PROCESSES), *CONSUMER)} > 0)"
    failed = share(total(_calls(PROCESSES, FAILED), *CONSUMER), processed)
    # A batch is one span: messages are counted where they are received.
    received = total(rate(RECEIVED, RANGE), *CONSUMER)
    edges = _rate_and_failed(f"({received} > 0 and {processed} or {processed})", failed, *CONSUMER)
    edges = _say(
        edges,
        "secondarystat",
        f"round(1000 * {_p95(DELAY, *CONSUMER)}, 0.1)",
        {"(.+)": "p95 $1 ms"},
        *CONSUMER,
        every=processed,
    )
    return _edge(edges, ("channel:$1", CHANNEL), ("service:$1", SERVICE), GROUP)


def _graph_nodes() -> str:
    """Both ends of every pair; how a service fares is what those say that ask it."""
    asked, asking = _as_service("server", "total"), _as_service("client", "total")
    active = f"(({asked} or on (service) {asking}) > 0)"
    failed = share(_as_service("server", "failed_total"), asked)
    p95 = f"histogram_quantile(0.95, {_pairs('server_seconds_bucket', 'le', 'server')}) >= 0"
    p95 = f'label_replace({p95}, "service", "$1", "server", "(.*)")'
    nodes = _counted(active, "mainstat", "service")
    nodes = _say(
        nodes,
        "secondarystat",
        f"round(1000 * {p95}, 0.1)",
        {"(.+)": "p95 $1 ms"},
        "service",
        every=active,
    )
    nodes = _coloured(nodes, failed, "service", every=active)
    return _node(nodes, "service", "service", board="service", variable="service")


def _graph_edges() -> str:
    requests = f"({_pairs('total', 'client', 'server')} > 0)"
    failed = share(_pairs("failed_total", "client", "server"), requests)
    edges = _rate_and_failed(requests, failed, "client", "server")
    return _edge(edges, ("service:$1", "client"), ("service:$1", "server"))


def _pairs(what: str, *labels: str) -> str:
    """Rates of the service graph's pairs with a chosen service at either end."""
    metric = f"traces_service_graph_request_{what}"
    # Whatever has no partner, a batch's root too, is paired with an invented "user" or "unknown".
    paired = 'connection_type!="virtual_node"'
    either = " or ".join(
        rate(select(metric, f'{end}=~"$service"', paired), RANGE) for end in ("client", "server")
    )
    return total(either, *labels)


def _as_service(end: str, what: str) -> str:
    """The rates of one end, under the name by which both ends are known."""
    return f'label_replace({_pairs(what, end)}, "service", "$1", "{end}", "(.*)")'


def _calls(*matchers: str) -> str:
    return rate(select(CALLS, *EVERYTHING_CHOSEN, *matchers), RANGE)


def _p95(buckets: str, *labels: str) -> str:
    """Where there was nothing to measure it is not a number, and so left out."""
    return f"({quantile(0.95, buckets, *labels, window=RANGE)} >= 0)"


def _counted(per_second: str, label: str, *by: str) -> str:
    """The value 1 for each series, with its rate in words in a label."""
    return _worded(f"round({per_second}, 0.01)", label, {"(.+)": "$1/s"}, *by)


def _rate_and_failed(per_second: str, failed: str, *by: str) -> str:
    edges = _counted(per_second, "rate", *by)
    words = {"(.+)": ", $1 % failed", ", 0 % failed": ""}
    edges = _say(edges, "failed", f"round(100 * {failed}, 0.1)", words, *by)
    edges = f'label_join({edges}, "mainstat", "", "rate", "failed")'
    return _coloured(edges, failed, *by)


def _coloured(base: str, failed: str, *by: str, every: str = "") -> str:
    """Give each series of `base` a colour by the share that failed: none, some, much."""
    shown = f"round({failed}, 0.001)"  # what reads 0 % is green
    degree = f"({shown} > bool 0) + ({shown} >= bool {MUCH})"
    if every:
        degree = f"({degree} or on ({', '.join(by)}) 0 * {every})"
    return _say(base, "color", degree, {"0": GREEN, "1": ORANGE, "2": RED}, *by)


def _say(
    base: str, label: str, value: str, words: Mapping[str, str], *by: str, every: str = ""
) -> str:
    """Give each series of `base` a label with a value in words.

    Args:
        words: The text in place of a value that matches the pattern; `$1` is its first group.
        by: The labels that tell the series apart.
        every: All series, plainly; needed where some have no such value and so get no label.
    """
    on = ", ".join(by)
    said = _worded(value, label, words, *by)
    if every:
        said = f"({said}\n or on ({on}) 0 * {every} + 1)"
    return f"({base}\n * on ({on}) group_left ({label}) {said})"


def _worded(value: str, label: str, words: Mapping[str, str], *by: str) -> str:
    """The value 1 for each series, with what it was in words in a label."""
    said = f'count_values by ({", ".join(by)}) ("{label}", {value})'
    for pattern, text in words.items():
        said = f'label_replace({said}, "{label}", "{text}", "{label}", "{pattern}")'
    return said


def _node(nodes: str, kind: str, name: str, *, board: str, variable: str) -> str:
    for label, value in {
        "id": f"{kind}:$1",
        "title": "$1",
        "subtitle": kind,
        "board": board,
        "variable": variable,
    }.items():
        nodes = f'label_replace({nodes}, "{label}", "{value}", "{name}", "(.*)")'
    return nodes


def _edge(edges: str, source: tuple[str, str], target: tuple[str, str], *also: str) -> str:
    """Draw an edge; each end is a template and the label that fills it.

    Args:
        also: More labels that tell two edges between the same nodes apart.
    """
    for end, (template, label) in {"source": source, "target": target}.items():
        edges = f'label_replace({edges}, "{end}", "{template}", "{label}", "(.*)")'
    ends = ", ".join(f'"{label}"' for label in ("source", "target", *also))
    return f'label_join({edges}, "id", " > ", {ends})'


def _linked(panel: nodegraph.Panel) -> nodegraph.Panel:
    """A click on a node leads to the board that tells more about it."""
    link = {
        "title": "Open the ${__data.fields.board} board",
        "url": f"/d/{PREFIX}${{__data.fields.board}}?var-${{__data.fields.variable}}="
        f"${{__data.fields.title}}&{KEPT}",
    }
    return panel.override_by_name("title", [property_of("links", [link])])
