"""Rules and alerts ask for what is really there, by the names that it really has."""

from pathlib import Path
from typing import Any

import promql
import pytest
import yaml
from matrix import TEMPLATE

from .apis import Prometheus
from .brokers import chosen_broker
from .conftest import Order
from .poll import poll_until
from .stores import chosen

pytestmark = pytest.mark.disturbs_the_stack  # not this, but what fills it does

WINDOW_SECONDS = 3600
CHOSEN = {"broker": chosen_broker(), "trace_backend": chosen()}


def is_baked(path: Path) -> bool:
    """Whether a file of the template is in a bake with these answers."""
    _, overlays, rest = str(path).partition("overlays/")
    option, _, answer = rest.partition("/")
    return not overlays or answer.startswith(f"{CHOSEN[option]}/")


RULES: list[dict[str, Any]] = [
    rule
    for path in sorted(
        Path(TEMPLATE, "{{cookiecutter.project_slug}}").rglob("prometheus/rules/*.yaml")
    )
    if is_baked(path)
    for group in yaml.safe_load(path.read_text("utf-8"))["groups"]
    for rule in group["rules"]
]

BORN_WITH_A_FAILURE = {
    "http:errors:rate5m",
    "loki_discarded_samples_total",
    "otelcol_exporter_enqueue_failed_log_records",
    "otelcol_exporter_enqueue_failed_metric_points",
    "otelcol_exporter_send_failed_log_records",
    "otelcol_exporter_send_failed_metric_points",
    "otelcol_exporter_send_failed_spans",
    "prometheus_notifications_errors_total",
    "service:errors:rate5m",
    "tempo_discarded_spans_total",
}
"""What is not there before the failure that it counts, and no test brings it about."""

AFTER_DAYS = {"flow:ended:rate15m_on_day_before", "flow:ended:usual_rate15m"}
"""What compares with days before."""

NO_PARTITION = {"messaging_destination_partition_id"}
NO_POSITION = {
    "messaging_consumer_position",
    "partition:consumer_position:max",
    "group:consumer_position:sum",
}
NO_REPLICAS = {
    "messaging_channel_replicas",
    "messaging_channel_replicas_in_sync",
    "channel:replicas_missing:sum",
}
UNTOLD = {
    "kafka": set[str](),
    "nats": NO_PARTITION,
    "rabbitmq": NO_PARTITION | NO_POSITION | NO_REPLICAS,
}
"""Metrics and labels that a broker has no facts for. The common rules cope without them."""


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_rule_names_what_there_is(
    rule: dict[str, Any], orders: dict[str, Order], prometheus: Prometheus
) -> None:
    metrics, labels = promql.names(rule["expr"])
    assert metrics or rule["expr"].startswith("vector("), rule["expr"]
    untold = UNTOLD[chosen_broker()]
    absent = BORN_WITH_A_FAILURE | AFTER_DAYS
    for metric in metrics & untold:
        assert not prometheus.ever(f'{{__name__="{metric}"}}', WINDOW_SECONDS)
    there: set[str] = set()
    for metric in metrics - absent - untold:
        series = poll_until(
            lambda metric=metric: prometheus.ever(f'{{__name__="{metric}"}}', WINDOW_SECONDS),  # type: ignore[misc]
            f"series of {metric}",
        )
        there |= {label for one in series for label in one}
    if not metrics & (absent | untold):
        assert labels - there == labels & untold
