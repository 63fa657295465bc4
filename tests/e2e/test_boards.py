"""Every panel of every board has an answer, and every name that it goes by exists."""

import math
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql
import pytest
from matrix import TEMPLATE

from dashboards.faults import NEEDS_FAULT, NEEDS_MORE, WHOLE_UNTIL_FAULT
from dashboards.metrics import METRICS

from .apis import Grafana, Loki, Prometheus, post
from .boards import Target, targets, variables
from .brokers import chosen_broker
from .conftest import Order
from .load import Load, flood
from .poll import poll_until
from .stack import Stack
from .stores import STORES, TraceStore, chosen
from .tables import ORDERS

pytestmark = pytest.mark.disturbs_the_stack

RANGE_SECONDS = 900
CHOICES = {"environment": ".*", "service": ".*", "destination": ".*", "traces_of": "orders"}

# What a board shows is known before a stack is up: that of the template, before it is baked.
_BAKED = TEMPLATE / "{{cookiecutter.project_slug}}"
_SOURCES = [
    _BAKED,
    _BAKED / "overlays/trace_backend" / chosen(),
    _BAKED / "overlays/broker" / chosen_broker(),
]
ALL = [
    target
    for source in _SOURCES
    for target in targets(source)
    if (target.board, target.panel, target.ref) not in NEEDS_MORE
]
ASKED = {name for one in ALL if one.source == "prometheus" for name in promql.names(one.query)[0]}
TARGETS = [one for one in ALL if (one.board, one.panel, one.ref) not in WHOLE_UNTIL_FAULT]
HEALTHY = [one for one in ALL if one not in TARGETS]
EVERY_BROKER = pytest.mark.every_broker
"""Of queries that load alone fills."""
VARIABLES = [target for source in _SOURCES for target in variables(source)]


@pytest.fixture(scope="module")
def healthy(stack: Stack, orders: dict[str, Order], prometheus: Prometheus) -> set[Target]:
    """The queries that answered above zero before anything went wrong."""
    queries = {one: one.filled(CHOICES, RANGE_SECONDS) for one in HEALTHY}
    for one, query in queries.items():
        poll_until(lambda: any(prometheus.values(query)), f"{one} to be healthy: {query}")  # noqa: B023
    return set(queries)


@pytest.fixture(scope="module")
def busy(stack: Stack, healthy: set[Target], request: pytest.FixtureRequest) -> Iterator[Stack]:
    """The stack under load, and what panels of faults need to have happened."""
    with Load(stack.url("ORDERS_PORT")):
        time.sleep(20)
        with stack.without("notifications", "loki"):
            time.sleep(20)  # messages wait for their consumer, log records in the Collector
        if all(one.get_closest_marker("every_broker") for one in request.session.items):
            yield stack  # no test is to run that needs more
            return
        with stack.without("otel-collector"), Load(stack.url("ORDERS_PORT"), rate=60):
            time.sleep(25)  # longer than the services' short queues last
        with stack.without(stack.traces):
            flood(stack.url("OTLP_HTTP_PORT"))
        with stack.without(stack.broker):
            time.sleep(40)  # requests fail in two exports of metrics: a rate needs two samples
        yield stack


@pytest.fixture(scope="module")
def values(busy: Stack) -> dict[str, str]:
    """The values of all variables: everything, and a trace that others link to."""
    trace_id = newest_order(busy)  # a store in memory may have dropped older ones by now
    # Tempo compares ids of links without the zeros that they begin with.
    return {**CHOICES, "traceId": trace_id.lstrip("0") if busy.traces == "tempo" else trace_id}


def newest_order(stack: Stack) -> str:
    """Place an order that succeeds; return the id of its trace."""
    answer = post(f"{stack.url('ORDERS_PORT')}/orders", {"sku": "keyboard", **ORDERS["good"]})
    return str(answer.body["trace_id"])


def skip_if_only_tempo_tells(stack: Stack, text: str) -> None:
    if stack.stand_in and "telemetry:taken" in text:
        pytest.skip("the sink that stands in for Tempo has no metrics")


def needs(target: Target) -> str:
    """Return the fault that a query needs; empty if load is enough."""
    return NEEDS_FAULT.get((target.board, target.panel, target.ref), "")


@pytest.mark.parametrize(
    "target",
    [pytest.param(one, marks=() if needs(one) else EVERY_BROKER) for one in TARGETS],
    ids=str,
)
def test_query_has_an_answer(
    target: Target, values: dict[str, str], prometheus: Prometheus, loki: Loki,
    store: TraceStore, stack: Stack,
) -> None:  # fmt: skip
    query = target.filled(values, RANGE_SECONDS)
    skip_if_only_tempo_tells(stack, query)
    fault = needs(target) or "load"

    def ask() -> Any:
        match target.source:
            case "prometheus":
                found = prometheus.values(query, 0 if target.instant else RANGE_SECONDS)
                return [value for value in found if value and math.isfinite(value)]
            case "loki":
                return loki.search(query, RANGE_SECONDS)
            case store.kind:
                if stack.stand_in:
                    pytest.skip("the sink that stands in for Tempo knows no TraceQL")
                return store.found_by(target.filled_fields(values, RANGE_SECONDS), RANGE_SECONDS)
        raise AssertionError(f"{target}: {target.source} is no data source of ours")

    poll_until(ask, f"an answer above zero, after {fault}, to {target}: {query}")


@pytest.mark.parametrize("target", HEALTHY, ids=str)
def test_query_says_that_all_is_well_and_then_that_it_is_not(
    target: Target, healthy: set[Target], busy: Stack, prometheus: Prometheus
) -> None:
    assert target in healthy
    query = target.filled(CHOICES, RANGE_SECONDS)
    poll_until(lambda: prometheus.values(query) == [0.0], f"{target} to be zero: {query}")


@pytest.mark.parametrize("target", VARIABLES, ids=str)
def test_variable_has_values(
    target: Target, values: dict[str, str], prometheus: Prometheus
) -> None:
    query = target.filled(values, RANGE_SECONDS)
    found = poll_until(lambda: prometheus.series(query), f"values of {target}: {query}")
    assert any(all(labels.values()) for labels in found if labels)


@pytest.mark.parametrize("target", [one for one in TARGETS if one.source not in STORES], ids=str)
def test_query_has_an_answer_through_grafana(
    target: Target, values: dict[str, str], grafana: Grafana, stack: Stack
) -> None:
    query = target.filled(values, RANGE_SECONDS)
    skip_if_only_tempo_tells(stack, query)
    frames = poll_until(
        lambda: grafana.query(target.source, query, RANGE_SECONDS, instant=target.instant),
        f"frames of {target}: {query}",
    )
    assert any(frame["schema"]["fields"] for frame in frames)


@pytest.mark.parametrize("metric", [metric for metric in METRICS if metric in ASKED])
def test_metric_has_the_labels_that_boards_use(
    metric: str, busy: Stack, prometheus: Prometheus
) -> None:
    skip_if_only_tempo_tells(busy, metric)
    series = poll_until(
        lambda: prometheus.ever(f'{{__name__="{metric}"}}', RANGE_SECONDS), f"series of {metric}"
    )
    labels = {label for one in series for label in one}
    assert set(METRICS[metric]) - labels == set()


def test_boards_are_provisioned(grafana: Grafana, stack: Stack) -> None:
    here = {path.stem for path in Path(stack.folder, "observability/grafana/dashboards").glob("*")}
    assert set(grafana.boards()) == here


@pytest.mark.parametrize(
    ("uid", "path"),
    [
        ("faststream-prometheus", "/api/v1/labels"),
        ("faststream-loki", "/loki/api/v1/labels"),
        ("faststream-traces", STORES[chosen()].ready),
    ],
)
def test_datasource_works(grafana: Grafana, uid: str, path: str) -> None:
    poll_until(lambda: grafana.reaches(uid, path), f"the data source {uid} through Grafana")


def test_nobody_reads_a_board_without_a_login(stack: Stack) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{stack.url('GRAFANA_PORT')}/api/dashboards/home", timeout=10)


def test_home_is_the_traces_board(grafana: Grafana) -> None:
    assert grafana.home() == "faststream-traces"
