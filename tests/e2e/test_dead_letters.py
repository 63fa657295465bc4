"""An order that fails is listed with its trace, sent back, and found again from either trace."""

import json
import re
from typing import Any

import pytest

from .apis import Loki, Span
from .conftest import Order
from .poll import poll_until
from .stack import Stack
from .stores import TraceStore
from .test_traces import label

pytestmark = pytest.mark.every_broker

ORIGIN = "payments.authorized"


def letters(stack: Stack, *arguments: str) -> list[dict[str, Any]]:
    lines = stack.tool("dead-letters", "--json", "--channel", ORIGIN, *arguments).splitlines()
    return [json.loads(line) for line in lines]


def of_trace(stack: Stack, trace_id: str, *arguments: str) -> list[dict[str, Any]]:
    return [one for one in letters(stack, *arguments) if one["trace_id"] == trace_id]


@pytest.fixture(scope="module")
def dead_letter(
    stack: Stack, traces: dict[str, list[Span]], orders: dict[str, Order]
) -> dict[str, Any]:
    """The dead letter of the failing order, as it is listed."""
    assert traces["failing"]  # has ended there
    (found,) = of_trace(stack, orders["failing"].trace_id)
    return found


@pytest.fixture(scope="module")
def replayed(stack: Stack, dead_letter: dict[str, Any]) -> str:
    """The id of the trace that replaying it began."""
    (new,) = re.findall(r"var-traceId=([0-9a-f]{32})", stack.tool("replay", dead_letter["id"]))
    return str(new)


@pytest.fixture(scope="module")
def new_trace(replayed: str, store: TraceStore) -> list[Span]:
    def whole() -> list[Span] | None:
        spans = store.trace(replayed)
        return spans if len(spans) >= 5 else None

    return poll_until(whole, "the trace of the replay")


def test_the_dead_letter_says_what_happened(
    dead_letter: dict[str, Any], orders: dict[str, Order]
) -> None:
    assert (dead_letter["channel"], dead_letter["attempts"], dead_letter["state"]) == (
        ORIGIN,
        3,
        "open",
    )
    assert dead_letter["error_type"].endswith(".NoCarrierError")
    assert dead_letter["reason"] == "no carrier delivers to AQ"
    assert json.loads(dead_letter["body"])["order_id"] == orders["failing"].answer.body["order_id"]


def test_the_dead_letter_leads_to_its_trace(dead_letter: dict[str, Any], stack: Stack) -> None:
    board = f"{stack.url('GRAFANA_PORT')}/d/faststream-traces?var-traceId={dead_letter['trace_id']}"
    assert dead_letter["trace"].startswith(board)


def test_the_service_goes_on_below_the_replay(new_trace: list[Span]) -> None:
    by_id = {span.span_id: span for span in new_trace}
    edges = sorted(
        (label(by_id[span.parent_id]) if span.parent_id else "", label(span)) for span in new_trace
    )
    assert edges == [
        ("", "replay: send payments.authorized"),
        ("replay: send payments.authorized", "shipping: process payments.authorized"),
        ("shipping: process payments.authorized", "shipping: retry payments.authorized"),
        ("shipping: process payments.authorized", "shipping: retry payments.authorized"),
        ("shipping: process payments.authorized", "shipping: send dead-letters"),
    ]


def test_new_and_old_trace_lead_to_each_other(
    new_trace: list[Span], traces: dict[str, list[Span]], store: TraceStore
) -> None:
    (sent,) = (one for one in traces["failing"] if one.name == "send dead-letters")
    (root,) = (one for one in new_trace if not one.parent_id)
    assert root.links == [(sent.trace_id, sent.span_id)]
    poll_until(
        lambda: root.trace_id in store.traces_linked_to(sent.trace_id),
        "the replay among the traces that link to the order's",
    )


def test_the_replay_is_logged_in_its_trace(replayed: str, loki: Loki) -> None:
    poll_until(lambda: loki.records("replay", replayed), "the log record of the replay")


def test_it_is_off_the_list_and_its_successor_on_it(
    stack: Stack, dead_letter: dict[str, Any], replayed: str, new_trace: list[Span]
) -> None:
    assert of_trace(stack, dead_letter["trace_id"]) == []
    (old,) = of_trace(stack, dead_letter["trace_id"], "--all")
    assert (old["id"], old["state"]) == (dead_letter["id"], "replayed")
    (successor,) = of_trace(stack, replayed)
    assert successor["message_id"] != dead_letter["message_id"]
