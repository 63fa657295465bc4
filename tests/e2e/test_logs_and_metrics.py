"""Logs and metrics arrive, and lead to the traces."""

import pytest

from .apis import Loki, Prometheus, Span
from .conftest import Order
from .poll import poll_until
from .stores import TraceStore
from .tables import DURATIONS, LINKS, LOGGED, SCRAPED, SIGNALS

pytestmark = pytest.mark.every_broker


@pytest.mark.parametrize(("kind", "service"), LOGGED)
def test_record_carries_the_trace_id(
    orders: dict[str, Order], loki: Loki, kind: str, service: str
) -> None:
    poll_until(
        lambda: loki.records(service, orders[kind].trace_id),
        f"a log record of {service} with the trace id of the {kind} order",
    )


@pytest.mark.parametrize("kind", LINKS)
def test_record_of_a_batch_carries_the_linked_trace_id(
    traces: dict[str, list[Span]], store: TraceStore, loki: Loki, kind: str
) -> None:
    linked = poll_until(
        lambda: store.traces_linked_to(traces[kind][0].trace_id), "the linked trace"
    )
    service = LINKS[kind][1].split(":")[0]
    poll_until(
        lambda: loki.records(service, linked[0]),
        f"a log record of {service} with the batch's trace id",
    )


@pytest.mark.parametrize(("service", "series"), SIGNALS)
def test_series_is_there_and_counts(
    orders: dict[str, Order], prometheus: Prometheus, service: str, series: str
) -> None:
    poll_until(lambda: prometheus.series(f"{series} > 0"), f"{series} of {service} above zero")


def test_exemplar_leads_to_a_trace(
    traces: dict[str, list[Span]], prometheus: Prometheus, store: TraceStore
) -> None:
    ours = {spans[0].trace_id for spans in traces.values()}
    found = poll_until(
        lambda: prometheus.exemplar_traces(DURATIONS) & ours, "an exemplar of one of the orders"
    )
    assert store.trace(found.pop())


def test_span_metrics_name_no_instance(orders: dict[str, Order], prometheus: Prometheus) -> None:
    series = poll_until(
        lambda: prometheus.series("traces_span_metrics_calls_total"), "span metrics"
    )
    labels = {label for one in series for label in one}
    assert not {label for label in labels if "instance" in label}


def test_the_trace_store_is_scraped(prometheus: Prometheus, store: TraceStore) -> None:
    poll_until(lambda: prometheus.targets().get(store.kind) == ["up"], f"a target {store.kind}")


@pytest.mark.parametrize(("job", "count"), SCRAPED.items())
def test_targets_are_scraped(prometheus: Prometheus, job: str, count: int) -> None:
    poll_until(
        lambda: prometheus.targets().get(job) == ["up"] * count, f"{count} healthy targets of {job}"
    )
