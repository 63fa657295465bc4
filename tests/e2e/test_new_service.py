"""A service that `make service` has added: in the order's trace, logs and metrics from its first
message, on a stack of its own, since its spans join the traces of all orders."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from bakery import Bakery
from test_removing_the_example import make_service

from .apis import Loki, Prometheus, Span, post
from .brokers import chosen_broker
from .poll import poll_until
from .stack import Stack
from .stores import STORES

NEEDED = [
    chosen_broker(),
    "channels",
    "otel-collector",
    "loki",
    "prometheus",
    "orders",
    "payments",
    "shipping",
]

ADDED = {
    "invoicing": "--consumes shipments.dispatched --publishes invoices.issued",
    "credit-notes": "--consumes invoices.issued",
}

EDGES = [
    ("shipping: send shipments.dispatched", "invoicing: process shipments.dispatched"),
    ("invoicing: process shipments.dispatched", "invoicing: send invoices.issued"),
    ("invoicing: send invoices.issued", "credit-notes: process invoices.issued"),
]

SIGNALS = [
    'traces_span_metrics_calls_total{service_name="invoicing"}',
    'traces_service_graph_request_total{client="shipping",server="invoicing"}',
    'traces_service_graph_request_total{client="invoicing",server="credit-notes"}',
    'faststream_received_processed_messages_total{app_name="invoicing"}',
    'faststream_published_messages_total{app_name="invoicing"}',
    'faststream_received_processed_messages_total{app_name="credit-notes"}',
]


@pytest.fixture(scope="module")
def served() -> Iterator[Stack]:
    """The default project with two services more, up."""
    with tempfile.TemporaryDirectory(prefix="e2e-served-") as folder:
        home = Path(folder)
        stack = Stack.bake(home / "project")
        for name, arguments in ADDED.items():
            command = "make", "service", f"NAME={name}", f"ARGS={arguments}"
            make_service(Bakery(home), stack.folder, *command)
        # The image is made as in the other tests: of whatever the versions allow.
        (stack.folder / "uv.lock").unlink()
        with stack.with_images():
            stack.services = [*NEEDED, stack.traces, *ADDED]
            stack.up()
            yield stack


@pytest.fixture(scope="module")
def trace(served: Stack) -> dict[str, Span]:
    """The spans of one order, by service and name, when those of the last service are there."""
    body = {"sku": "keyboard", "amount_cents": 12900, "country": "FI"}
    answer = post(f"{served.url('ORDERS_PORT')}/orders", body)
    assert answer.status == 202
    store = STORES[served.traces](served.url(served.traces_port))

    def whole() -> dict[str, Span] | None:
        spans = store.trace(answer.body["trace_id"])
        named = {f"{span.service}: {span.name}": span for span in spans}
        return named if named.keys() >= {name for edge in EDGES for name in edge} else None

    return poll_until(whole, "the spans of the new services in the order's trace")


@pytest.mark.parametrize(("parent", "child"), EDGES)
def test_it_is_in_the_orders_trace(trace: dict[str, Span], parent: str, child: str) -> None:
    assert trace[child].parent_id == trace[parent].span_id


@pytest.mark.parametrize("service", ["invoicing", "credit-notes"])
def test_its_record_carries_the_trace_id(
    trace: dict[str, Span], served: Stack, service: str
) -> None:
    trace_id = next(iter(trace.values())).trace_id
    loki = Loki(served.url("LOKI_PORT"))
    (record,) = poll_until(lambda: loki.records(service, trace_id), f"a log record of {service}")
    assert record.endswith(" handled")


@pytest.mark.usefixtures("trace")
@pytest.mark.parametrize("series", SIGNALS)
def test_its_series_are_there_and_count(served: Stack, series: str) -> None:
    prometheus = Prometheus(served.url("PROMETHEUS_PORT"))
    poll_until(lambda: prometheus.series(f"{series} > 0"), f"{series} above zero")
