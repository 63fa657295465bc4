"""One order, one trace: its shape and its attributes, without a broker."""

import json
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from {{ cookiecutter.package_name }}.services import orders

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
    method: str = "POST",
    hang_up: bool = False,
) -> tuple[int, Any, dict[str, str]]:
    """Call the orders service as its HTTP server would."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    requests: list[dict[str, Any]] = [
        {"type": "http.request", "body": content, "more_body": hang_up},
        {"type": "http.disconnect"},
    ]
    sent: list[Any] = []
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "scheme": "http",
        "server": ("localhost", 8000),
        "headers": [
            (name.encode(), value.encode())
            for name, value in ({"content-type": "application/json"} | (headers or {})).items()
        ],
    }

    async def receive() -> dict[str, Any]:
        return requests.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    await orders.app(scope, receive, send)
    start, answer = sent
    answered = {name.decode().lower(): value.decode() for name, value in start["headers"]}
    is_json = answered.get("content-type") == "application/json"
    return start["status"], json.loads(answer["body"]) if is_json else None, answered


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


async def test_the_same_key_is_the_same_order(flow: InMemorySpanExporter) -> None:
    keys = ("again", "again", "another")
    answers = [await post("/orders", ORDER, {"Idempotency-Key": key}) for key in keys]
    first, again, another = (answer["order_id"] for _, answer, _ in answers)
    assert first == again
    assert first != another

    for length, expected in ((255, 202), (256, 400)):
        status, answer, _ = await post("/orders", ORDER, {"Idempotency-Key": "k" * length})
        assert status == expected
    assert "255 characters" in json.dumps(answer)


async def test_a_body_that_is_too_large_is_refused(flow: InMemorySpanExporter) -> None:
    status, answer, _ = await post("/orders", b" " * 1_048_577)

    assert status == 413
    assert answer["errors"][0]["field"] == "body"


async def test_a_body_with_many_errors_has_some_of_them_told(flow: InMemorySpanExporter) -> None:
    status, answer, _ = await post("/orders", ORDER | dict.fromkeys(map(str, range(1000)), 1))

    assert status == 422
    assert len(answer["errors"]) == 20


async def test_a_caller_that_hangs_up_is_no_error_of_ours(
    flow: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    status, _, _ = await post("/orders", b"{", hang_up=True)

    assert status == 400
    assert named(flow.get_finished_spans(), "POST /orders").status.status_code is StatusCode.UNSET
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_only_post_places_an_order(flow: InMemorySpanExporter, method: str) -> None:
    status, _, headers = await post("/orders", ORDER, method=method)

    assert status == 405
    assert headers["allow"] == "POST"
    assert tree(flow.get_finished_spans()) == {f"{method} /orders": {}}


async def test_openapi_describes_the_order() -> None:
    from {{ cookiecutter.package_name }}.openapi import document

    schema = document()["components"]["schemas"]["OrderRequest"]
    assert set(schema["properties"]) == set(ORDER)
