"""What a span loses on its way into Zipkin is what docs/traces.md says, and no more."""

import json
from typing import Any

import pytest

from .apis import Span
from .poll import poll_until
from .stores import TraceStore, chosen

pytestmark = pytest.mark.skipif(chosen() != "zipkin", reason="the traces are kept elsewhere")


@pytest.fixture(scope="module")
def raw(traces: dict[str, list[Span]], store: TraceStore) -> dict[str, dict[str, Any]]:
    """The spans of the failing order, and of the batch that links to the good one, by name."""
    (batch,) = poll_until(lambda: store.traces_linked_to(traces["good"][0].trace_id), "the batch")[
        :1
    ]
    texts = (store.text_of(one) for one in (traces["failing"][0].trace_id, batch))
    return {span["name"]: span for text in texts for span in json.loads(text)}


def test_names_are_in_lower_case(raw: dict[str, dict[str, Any]]) -> None:
    assert "post /orders" in raw


def test_a_link_is_a_text(raw: dict[str, dict[str, Any]], traces: dict[str, list[Span]]) -> None:
    (sent,) = (span for span in traces["good"] if span.name == "send shipments.dispatched")
    tags = raw["process shipments.dispatched"]["tags"]
    links = [value for key, value in tags.items() if key.startswith("otlp.link.")]
    assert any(link.startswith(f"{sent.trace_id}|{sent.span_id}|") for link in links)


def test_status_events_resource_and_numbers_are_texts(raw: dict[str, dict[str, Any]]) -> None:
    failed = raw["process payments.authorized"]
    assert failed["tags"]["error"] == "true"
    assert failed["tags"]["otel.status_code"] == "STATUS_CODE_ERROR"
    assert "NoCarrierError" in failed["tags"]["otel.status_description"]
    assert any("NoCarrierError" in one["value"] for one in failed["annotations"])
    assert failed["tags"]["service.namespace"] == "order-flow"
    assert raw["post /orders"]["tags"]["http.response.status_code"] == "202"
    assert raw["authorize card"]["tags"]["span.kind"] == "internal"
    assert "kind" not in raw["authorize card"]
