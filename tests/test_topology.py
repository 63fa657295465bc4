"""The board Topology draws every consumer: its two queries, evaluated by promtool."""

import json
import re
import subprocess
from pathlib import Path

import yaml
from tools import tool

from dashboards.build import files

GREEN, ORANGE, RED = "#73BF69", "#FF9830", "#F2495C"
CALLS = "traces_span_metrics_calls_total"
DELAY = "messaging_receive_delay_seconds"
VARIABLES = {"$service": ".*", "$destination": ".*", "$environment": ".*", "$__range": "10m"}

Series = dict[str, str]


def counter(name: str, per_second: float, **labels: str) -> Series:
    return {"series": selector(name, labels), "values": f"0+{per_second * 60:g}x40"}


def sent(service: str, channel: str, per_second: float) -> Series:
    return counter(
        CALLS, per_second, service_name=service, messaging_destination_template=channel,
        span_kind="SPAN_KIND_PRODUCER", messaging_operation_type="send",
    )  # fmt: skip


def processed(service: str, channel: str, group: str, per_second: float, status: str) -> Series:
    return counter(
        CALLS, per_second, service_name=service, messaging_destination_template=channel,
        messaging_consumer_group_name=group, span_kind="SPAN_KIND_CONSUMER",
        messaging_operation_type="process", status_code=f"STATUS_CODE_{status}",
    )  # fmt: skip


def received(service: str, channel: str, group: str, per_second: float) -> list[Series]:
    """Half of them within 100 ms, all within a second."""
    labels = {
        "service_name": service,
        "messaging_destination_template": channel,
        "messaging_consumer_group_name": group,
    }
    buckets = {"0.1": per_second / 2, "1.0": per_second, "+Inf": per_second}
    return [
        counter(f"{DELAY}_count", per_second, **labels),
        *(counter(f"{DELAY}_bucket", n, le=le, **labels) for le, n in buckets.items()),
    ]


def selector(name: str, labels: dict[str, str]) -> str:
    return name + "{" + ", ".join(f'{key}="{value}"' for key, value in labels.items()) + "}"


LAG = {"messaging_destination_template": "orders", "messaging_consumer_group_name": "lake"}
HAPPENED = [
    sent("shop", "orders", 1),
    # Two groups of one service, and one of another: each gets every message.
    processed("desk", "orders", "desk.bills", 0.9, "UNSET"),
    processed("desk", "orders", "desk.bills", 0.1, "ERROR"),
    processed("desk", "orders", "desk.mails", 1, "UNSET"),
    # Batches of ten.
    processed("lake", "orders", "lake", 0.1, "UNSET"),
    *received("lake", "orders", "lake", 1),
    {"series": selector("messaging_consumer_lag", LAG | {"state": "ready"}), "values": "3x40"},
    {"series": selector("messaging_consumer_lag", LAG | {"state": "in_flight"}), "values": "2x40"},
    # There, but idle: a node without an edge would be noise.
    processed("desk", "returns", "desk.returns", 0, "UNSET"),
]

NODES = {
    ("shop", "service", "1/s", "", GREEN),  # it only publishes: nothing that could have failed
    ("desk", "service", "2/s", "5 % failed", RED),
    ("lake", "service", "0.1/s", "0 % failed", GREEN),
    ("orders", "channel", "1/s", "5 waiting", ORANGE),
}
"""Title, kind, first line, second line, colour."""

EDGES = {
    ("service:shop", "channel:orders", "1/s", "", GREEN),
    ("channel:orders", "service:desk", "1/s, 10 % failed", "", RED),
    ("channel:orders", "service:desk", "1/s", "", GREEN),
    ("channel:orders", "service:lake", "1/s", "p95 910 ms", GREEN),
}
"""Source, target, first line, second line, colour."""


def test_services_and_channels_are_drawn_with_every_consumer_group(tmp_path: Path) -> None:
    nodes, edges = (ask(query, tmp_path) for query in queries())
    assert {fields(node, "title", "subtitle") for node in nodes} == NODES
    assert {fields(edge, "source", "target") for edge in edges} == EDGES
    ids = {node["id"] for node in nodes}
    assert {edge[end] for edge in edges for end in ("source", "target")} <= ids, "panel fails"
    assert len({edge["id"] for edge in edges}) == len(edges) == len(EDGES)


def fields(row: dict[str, str], *names: str) -> tuple[str, ...]:
    return tuple(row.get(name, "") for name in (*names, "mainstat", "secondarystat", "color"))


def queries() -> list[str]:
    """Return the query of the nodes and that of the edges."""
    (text,) = (text for path, text in files().items() if path.stem == "faststream-topology")
    panels = {panel["title"]: panel for panel in json.loads(text)["panels"]}
    targets = {one["refId"]: one["expr"] for one in panels["Services and channels"]["targets"]}
    return [targets["nodes"], targets["edges"]]


def ask(query: str, folder: Path) -> list[dict[str, str]]:
    """Return the labels of each series in the answer after half an hour of what happened.

    promtool only compares; so it is given nothing to expect, and tells what it got.
    """
    promtool = tool("promtool", "the topology's queries draw what happened")
    for variable, value in VARIABLES.items():
        query = query.replace(variable, value)
    case = {"expr": query, "eval_time": "30m", "exp_samples": []}
    test = {"interval": "1m", "input_series": HAPPENED, "promql_expr_test": [case]}
    (folder / "test.yaml").write_text(yaml.safe_dump({"tests": [test]}), "utf-8")
    done = subprocess.run(
        [promtool, "test", "rules", "test.yaml"], cwd=folder, capture_output=True, encoding="utf-8"
    )
    found = re.search(r"got:(.*)", done.stdout + done.stderr)
    assert found, done.stdout + done.stderr
    series = re.findall(r"\{([^{}]*)\} [-+\dE.]+", found[1])
    return [dict(re.findall(r'(\w+)="([^"]*)"', labels)) for labels in series]
