"""One order, one trace, a true chain; batches link to their causes."""

from collections import Counter

import pytest

from .apis import Span
from .conftest import Order
from .poll import poll_until
from .stores import TraceStore
from .tables import EDGES, ERRORS, KINDS, LINKS, ORDERS

pytestmark = pytest.mark.every_broker


def label(span: Span) -> str:
    return f"{span.service}: {span.name}"


@pytest.mark.parametrize("kind", ORDERS)
def test_order_is_accepted_with_its_trace_id(orders: dict[str, Order], kind: str) -> None:
    answer = orders[kind].answer
    assert answer.status == 202
    assert answer.body["order_id"]
    assert len(bytes.fromhex(answer.body["trace_id"])) == 16


@pytest.mark.parametrize("kind", EDGES)
def test_trace_has_its_edges_and_no_others(traces: dict[str, list[Span]], kind: str) -> None:
    by_id = {span.span_id: span for span in traces[kind]}
    edges = Counter(
        (label(by_id[span.parent_id]) if span.parent_id in by_id else "missing", label(span))
        for span in traces[kind]
        if span.parent_id
    )
    assert edges == Counter(EDGES[kind])


@pytest.mark.parametrize("kind", EDGES)
def test_trace_has_one_root(traces: dict[str, list[Span]], kind: str) -> None:
    roots = [label(span) for span in traces[kind] if not span.parent_id]
    assert roots == ["orders: POST /orders"]


@pytest.mark.parametrize("kind", EDGES)
def test_spans_are_of_their_kind(traces: dict[str, list[Span]], kind: str) -> None:
    for span in traces[kind]:
        assert span.kind == KINDS.get(span.name.split()[0], "INTERNAL"), label(span)


@pytest.mark.parametrize("kind", ERRORS)
def test_only_what_failed_is_an_error(traces: dict[str, list[Span]], kind: str) -> None:
    assert {label(span) for span in traces[kind] if span.status == "ERROR"} == ERRORS[kind]


@pytest.mark.parametrize("kind", LINKS)
def test_batch_roots_a_trace_and_links_to_its_cause(
    traces: dict[str, list[Span]], store: TraceStore, kind: str
) -> None:
    cause, effect = LINKS[kind]
    sent = next(span for span in traces[kind] if label(span) == cause)

    def linked() -> list[Span]:
        return [
            span
            for trace_id in store.traces_linked_to(sent.trace_id)
            for span in store.trace(trace_id)
            if (sent.trace_id, sent.span_id) in span.links
        ]

    spans = poll_until(linked, f"a span that links to {cause}")
    assert [(label(span), span.kind, span.parent_id) for span in spans] == [
        (effect, "CONSUMER", "")
    ]
