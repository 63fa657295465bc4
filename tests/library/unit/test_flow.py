"""One order, one trace: its shape and its attributes, without a broker."""

import asyncio
import json
import math
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from faststream_otel.http import MemoryKeyStore
from faststream_otel.http.idempotency_key import KEY_PATTERN
from faststream_otel.messages.broker import Unavailable
from opentelemetry import baggage
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from order_flow.contracts import OrderPlaced
from order_flow.services import orders

from ..spans import context, named, tree

ORDER = {
    "sku": "keyboard",
    "quantity": 1,
    "amount_cents": 12900,
    "currency": "EUR",
    "country": "FI",
}


async def post(
    path: str,
    body: object,
    headers: dict[str, str] | None = None,
    *,
    more: Sequence[tuple[str, str]] = (),
    method: str = "POST",
) -> tuple[int, Any, httpx.Headers]:
    """Call the orders service as its HTTP server would."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [("Content-Type", "application/json"), *(headers or {}).items(), *more]
    transport = httpx.ASGITransport(orders.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
        answer = await client.request(method, path, content=content, headers=lines)
    return answer.status_code, answer.json() if answer.content else None, answer.headers


async def test_an_order_is_one_chain(flow: InMemorySpanExporter) -> None:
    status, answer, _ = await post("/orders", ORDER)

    assert status == 202
    spans = flow.get_finished_spans()
    order = [span for span in spans if f"{context(span).trace_id:032x}" == answer["trace_id"]]
    assert tree(order) == {
        "POST /orders": {
            "send orders.placed": {
                "process orders.placed": {
                    "authorize card": {},
                    "send payments.authorized": {
                        "process payments.authorized": {"send shipments.dispatched": {}}
                    },
                }
            }
        }
    }


async def test_the_batch_has_a_trace_of_its_own_with_links(flow: InMemorySpanExporter) -> None:
    await post("/orders", ORDER)

    spans = flow.get_finished_spans()
    batch = named(spans, "process shipments.dispatched")
    cause = named(spans, "send shipments.dispatched")
    assert batch.parent is None
    assert context(batch).trace_id != context(cause).trace_id
    assert [link.context.span_id for link in batch.links] == [context(cause).span_id]


async def test_the_callers_trace_goes_on(flow: InMemorySpanExporter) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    _, answer, _ = await post("/orders", ORDER, {"traceparent": parent})

    server = named(flow.get_finished_spans(), "POST /orders")
    assert answer["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert server.parent is not None
    assert f"{server.parent.span_id:016x}" == "b7ad6b7169203331"


async def test_a_declined_card_is_no_error(flow: InMemorySpanExporter) -> None:
    await post("/orders", ORDER | {"amount_cents": 100_001})

    spans = flow.get_finished_spans()
    process = named(spans, "process orders.placed")
    assert process.status.status_code is StatusCode.UNSET
    assert [event.name for event in process.events] == ["payment declined"]
    assert (process.attributes or {})["payment.outcome"] == "declined"
    assert named(spans, "process payments.declined").links


async def test_exhausted_retries_end_in_the_dead_letters(flow: InMemorySpanExporter) -> None:
    await post("/orders", ORDER | {"country": "AQ"})

    spans = flow.get_finished_spans()
    process = named(spans, "process payments.authorized")
    children = [
        span.name
        for span in spans
        if span.parent and span.parent.span_id == context(process).span_id
    ]
    assert children == ["retry payments.authorized"] * 2 + ["send dead-letters"]
    assert process.status.status_code is StatusCode.ERROR
    assert str((process.attributes or {})["error.type"]).endswith(".NoCarrierError")


async def test_messaging_attributes(flow: InMemorySpanExporter) -> None:
    """Messaging semantic conventions 1.44: names and types."""
    _, answer, _ = await post("/orders", ORDER)

    spans = flow.get_finished_spans()
    send = named(spans, "send orders.placed")
    process = named(spans, "process orders.placed")
    assert send.kind is SpanKind.PRODUCER
    assert process.kind is SpanKind.CONSUMER
    sent, processed = dict(send.attributes or {}), dict(process.attributes or {})
    shared = {
        "messaging.system": "kafka",
        "messaging.destination.name": "orders.placed",
        "messaging.kafka.message.key": answer["order_id"],
        "server.address": "localhost",
        "server.port": 9092,
    }
    assert (
        sent.items()
        >= {
            **shared,
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
        }.items()
    )
    assert (
        processed.items()
        >= {
            **shared,
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.consumer.group.name": "payments.orders.placed",
            "messaging.destination.partition.id": "0",
            "order.id": answer["order_id"],
        }.items()
    )
    assert isinstance(processed["messaging.kafka.offset"], int)
    assert isinstance(processed["messaging.message.body.size"], int)
    assert (
        sent["messaging.message.conversation_id"] == processed["messaging.message.conversation_id"]
    )


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (ORDER | {"amount_cents": -1}, "amount_cents"),
        (ORDER | {"amount_cents": "5"}, "amount_cents"),
        (ORDER | {"quantity": True}, "quantity"),
        (ORDER | {"country": "Finland"}, "country"),
        (ORDER | {"colour": "red"}, "colour"),
        ({key: value for key, value in ORDER.items() if key != "sku"}, "sku"),
        (b"{not json", "body"),
        (b"", "body"),
    ],
)
async def test_a_bad_body_is_refused_with_its_field(
    flow: InMemorySpanExporter, body: object, field: str
) -> None:
    status, answer, _ = await post("/orders", body)

    assert status == 422
    assert [error["field"] for error in answer["errors"]] == [field]
    assert all(error["reason"] for error in answer["errors"])
    assert tree(flow.get_finished_spans()) == {"POST /orders": {}}


@pytest.mark.parametrize(
    "body",
    [
        b"\xef\xbb\xbf" + json.dumps(ORDER).encode(),
        json.dumps(ORDER).encode("utf-16"),
        json.dumps(ORDER | {"sku": "\udc80"}).encode(),
        json.dumps(ORDER | {"\udc80": 1}).encode(),
        json.dumps(ORDER).replace("keyboard", "\udc80").encode(errors="surrogatepass"),
        json.dumps(ORDER | {"amount_cents": math.nan}).encode(),
        json.dumps(ORDER | {"amount_cents": math.inf}).encode(),
        json.dumps(ORDER).replace("12900", "1" * 5000).encode(),
        json.dumps(ORDER).replace("12900", "1e400").encode(),
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b"[" * 100_000,
    ],
    ids=range(11),
)
async def test_json_that_reads_in_more_than_one_way_is_refused(
    flow: InMemorySpanExporter, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    status, answer, _ = await post("/orders", body)

    assert status == 422
    assert answer["errors"][0]["reason"]
    assert tree(flow.get_finished_spans()) == {"POST /orders": {}}
    assert not [record for record in caplog.records if record.name != "httpx"]


KEY = "Idempotency-Key"


async def test_the_same_key_is_the_same_order(flow: InMemorySpanExporter) -> None:
    keys = ("again", "again", '"again"', "another")
    answers = [await post("/orders", ORDER, {KEY: key}) for key in keys]
    assert [status for status, _, _ in answers] == [202] * 4
    first, *again, another = (answer for _, answer, _ in answers)
    assert again == [first, first]  # the trace too, in which the order went on its way
    assert first["order_id"] != another["order_id"]
    sent = [span for span in flow.get_finished_spans() if span.name == "send orders.placed"]
    assert len(sent) == 2


async def test_another_order_under_the_key_is_refused(flow: InMemorySpanExporter) -> None:
    assert (await post("/orders", ORDER, {KEY: "reused"}))[0] == 202
    same = dict(reversed(ORDER.items()))
    assert (await post("/orders", same, {KEY: "reused"}))[0] == 202
    status, answer, _ = await post("/orders", ORDER | {"amount_cents": 1}, {KEY: "reused"})
    assert status == 422
    assert answer == {
        "errors": [{"field": KEY, "reason": "was sent with another request before"}],
    }


async def test_after_a_restart_the_same_order_has_the_same_id(
    flow: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, before, _ = await post("/orders", ORDER, {KEY: "restart"})
    monkeypatch.setattr(orders, "keys", MemoryKeyStore())
    _, after, _ = await post("/orders", ORDER, {KEY: "restart"})
    monkeypatch.setattr(orders, "keys", MemoryKeyStore())
    _, other, _ = await post("/orders", ORDER | {"amount_cents": 1}, {KEY: "restart"})
    assert before["order_id"] == after["order_id"]
    assert other["order_id"] != before["order_id"]


async def test_what_ended_in_a_refusal_may_be_tried_again(
    flow: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    async def away(publisher: object, event: OrderPlaced, **_: object) -> None:
        seen.append(event.order_id)
        raise Unavailable

    with monkeypatch.context() as patch:
        patch.setattr(orders.service, "send", away)
        assert (await post("/orders", ORDER | {"sku": ""}, {KEY: "retry"}))[0] == 422
        assert (await post("/orders", ORDER, {KEY: "retry"}))[0] == 503
        # It may be on its way, though it was refused.
        assert (await post("/orders", ORDER | {"sku": "x"}, {KEY: "retry"}))[0] == 422
    status, answer, _ = await post("/orders", ORDER, {KEY: "retry"})
    assert (status, [answer["order_id"]]) == (202, seen)


async def test_what_is_still_being_answered_is_not_done_twice(
    flow: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, confirmed = asyncio.Event(), asyncio.Event()

    async def slow(publisher: object, event: OrderPlaced, **_: object) -> None:
        begun.set()
        await confirmed.wait()

    monkeypatch.setattr(orders.service, "send", slow)
    first = asyncio.create_task(post("/orders", ORDER, {KEY: "slow"}))
    await begun.wait()
    status, answer, _ = await post("/orders", ORDER, {KEY: "slow"})
    assert status == 409
    assert answer["errors"][0]["field"] == KEY
    confirmed.set()
    assert (await first)[0] == 202


@pytest.mark.parametrize("value", ["", "k" * 256, "a, b", '"a'])
async def test_a_bad_key_is_refused(flow: InMemorySpanExporter, value: str) -> None:
    status, answer, _ = await post("/orders", ORDER, {KEY: value})
    assert status == 400
    assert answer["errors"][0]["field"] == KEY


async def test_two_keys_are_refused(flow: InMemorySpanExporter) -> None:
    status, answer, _ = await post("/orders", ORDER, more=[(KEY, "a"), (KEY, "b")])
    assert status == 400
    assert "more than once" in answer["errors"][0]["reason"]


@pytest.mark.parametrize(
    "pieces", [["vendor=x,other=y"], ["vendor=x", "other=y"], ["vendor=x", "", "other=y"]]
)
async def test_header_lines_of_one_name_are_one_list(
    flow: InMemorySpanExporter, pieces: list[str]
) -> None:
    """W3C Trace Context, 3.3.1; W3C Baggage, 3.1."""
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    seen = []

    async def sees(publisher: object, event: OrderPlaced, **_: object) -> None:
        seen.append(dict(baggage.get_all()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(orders.service, "send", sees)
        lines = [(name, piece) for piece in pieces for name in ("tracestate", "baggage")]
        await post("/orders", ORDER, {"traceparent": parent}, more=lines)
    state = context(named(flow.get_finished_spans(), "POST /orders")).trace_state
    assert dict(state) == {"vendor": "x", "other": "y"}
    assert seen == [{"vendor": "x", "other": "y"}]


async def test_two_traceparents_are_none(flow: InMemorySpanExporter) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await post("/orders", ORDER, more=[("traceparent", parent)] * 2)
    assert named(flow.get_finished_spans(), "POST /orders").parent is None


async def test_the_server_span_is_the_services_own(flow: InMemorySpanExporter) -> None:
    await post("/orders", ORDER)
    resource = named(flow.get_finished_spans(), "POST /orders").resource
    assert resource.attributes["service.name"] == "orders"


async def test_a_body_that_is_too_large_is_refused(flow: InMemorySpanExporter) -> None:
    status, answer, _ = await post("/orders", b" " * 1_048_577)

    assert status == 413
    assert answer["errors"][0]["field"] == "body"


async def test_a_body_with_many_errors_has_some_of_them_told(flow: InMemorySpanExporter) -> None:
    status, answer, _ = await post("/orders", ORDER | dict.fromkeys(map(str, range(1000)), 1))

    assert status == 422
    assert len(answer["errors"]) == 20


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_only_post_places_an_order(flow: InMemorySpanExporter, method: str) -> None:
    status, _, headers = await post("/orders", ORDER, method=method)

    assert status == 405
    assert headers["allow"] == "POST"
    assert tree(flow.get_finished_spans()) == {f"{method} /orders": {}}


def test_openapi_describes_the_order() -> None:
    document = orders.service.http.openapi()
    assert set(document["components"]["schemas"]["OrderRequest"]["properties"]) == set(ORDER)
    (key,) = document["paths"]["/orders"]["post"]["parameters"]
    assert (key["name"], key["in"], key["required"]) == (KEY, "header", False)
    assert (key["schema"]["pattern"], key["schema"]["maxLength"]) == (KEY_PATTERN, 255)
