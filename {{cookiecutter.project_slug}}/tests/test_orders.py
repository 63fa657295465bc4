"""Orders: accepted, refused and repeated ones."""

import pytest
from faststream_otel.testing import Client, ServiceFlow, Trace

from {{ cookiecutter.package_name }}.channels import ORDERS
from {{ cookiecutter.package_name }}.contracts import OrderPlaced
from {{ cookiecutter.package_name }}.services import orders

from .conftest import ORDER, Place


async def test_an_order_is_published_as_it_was_placed(
    place: Place, service_flow: ServiceFlow
) -> None:
    accepted = await place(quantity=2)

    assert service_flow.published(ORDERS) == [
        OrderPlaced(
            order_id=accepted.order_id,
            sku="keyboard",
            quantity=2,
            amount_cents=12900,
            currency="EUR",
            country="FI",
        )
    ]


@pytest.mark.parametrize(
    "wrong",
    [{"amount_cents": 0}, {"amount_cents": "12900"}, {"country": "Finland"}, {"colour": "red"}],
)
async def test_an_invalid_order_is_refused_and_not_published(
    http_client: Client, service_flow: ServiceFlow, wrong: dict[str, object]
) -> None:
    answer = await http_client(orders.service).post("/orders", json=ORDER | wrong)

    assert answer.status_code == 422
    assert next(iter(wrong)) in answer.text
    assert service_flow.published(ORDERS) == []


async def test_an_order_repeated_with_its_key_is_placed_once(
    place: Place, service_flow: ServiceFlow
) -> None:
    first = await place(key="again")

    assert await place(key="again") == first
    assert (await place(key="another")).order_id != first.order_id
    assert len(service_flow.published(ORDERS)) == 2


async def test_another_order_under_a_used_key_is_refused(place: Place, http_client: Client) -> None:
    await place(key="used")

    answer = await http_client(orders.service).post(
        "/orders", json=ORDER | {"quantity": 3}, headers={"Idempotency-Key": "used"}
    )
    assert answer.status_code == 422


async def test_the_trace_of_the_caller_is_continued(http_client: Client, trace: Trace) -> None:
    caller = "0af7651916cd43dd8448eb211c80319c"

    answer = await http_client(orders.service).post(
        "/orders", json=ORDER, headers={"traceparent": f"00-{caller}-b7ad6b7169203331-01"}
    )
    assert answer.json()["trace_id"] == caller
    assert trace.of(caller).roots() == ["POST /orders"]
