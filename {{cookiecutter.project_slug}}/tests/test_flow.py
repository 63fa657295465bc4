"""One order is one trace, from the request to shipping; batches link to it. Without a broker."""

import pytest
from faststream_otel.testing import DeadLetter, Trace
from opentelemetry.trace import StatusCode

from .conftest import DECLINED, FAILING, Place

# Pairs of names, parent and child: each hop is a child of the one before it.
EDGES = [
    ("POST /orders", "send orders.placed"),
    ("send orders.placed", "process orders.placed"),
    ("process orders.placed", "authorize card"),
    ("process orders.placed", "send payments.authorized"),
    ("send payments.authorized", "process payments.authorized"),
    ("process payments.authorized", "send shipments.dispatched"),
]
DECLINED_EDGES = [*EDGES[:3], ("process orders.placed", "send payments.declined")]
FAILING_EDGES = [
    *EDGES[:5],
    ("process payments.authorized", "retry payments.authorized"),
    ("process payments.authorized", "retry payments.authorized"),
    ("process payments.authorized", "send dead-letters"),
]


@pytest.mark.parametrize(
    ("order", "edges"), [({}, EDGES), (DECLINED, DECLINED_EDGES), (FAILING, FAILING_EDGES)]
)
async def test_an_order_is_one_trace(
    place: Place, trace: Trace, order: dict[str, object], edges: list[tuple[str, str]]
) -> None:
    placed = await place(**order)
    assert trace.of(placed.trace_id).edges() == edges


@pytest.mark.parametrize(
    ("order", "link"),
    [
        ({}, ("send shipments.dispatched", "process shipments.dispatched")),
        (DECLINED, ("send payments.declined", "process payments.declined")),
    ],
)
async def test_a_batch_has_its_own_trace_with_links_to_its_messages(
    place: Place, trace: Trace, order: dict[str, object], link: tuple[str, str]
) -> None:
    placed = await place(**order)

    assert trace.links() == [link]
    assert trace.of(placed.trace_id).links() == []
    assert link[1] in trace.roots()


async def test_only_the_failing_order_has_error_spans(
    place: Place, trace: Trace, dead_letters: list[DeadLetter]
) -> None:
    await place()
    await place(**DECLINED)
    failing = await place(**FAILING)

    failed = [span.name for span in trace.spans if span.status.status_code is StatusCode.ERROR]
    assert set(failed) == {"process payments.authorized", "retry payments.authorized"}
    assert [log.trace_id for log in trace.logs if log.severity == "ERROR"] == [failing.trace_id]
    (dead_letter,) = dead_letters
    assert failing.trace_id in dead_letter.headers["traceparent"]


async def test_what_is_logged_about_an_order_leads_to_its_trace(place: Place, trace: Trace) -> None:
    placed = await place()

    about = [log for log in trace.logs if placed.order_id in log.message]
    assert {log.logger.rpartition(".")[2]: log.trace_id for log in about} == {
        "orders": placed.trace_id,
        "payments": placed.trace_id,
        "shipping": placed.trace_id,
        "notifications": trace.trace_ids[-1],  # the batch's
    }
