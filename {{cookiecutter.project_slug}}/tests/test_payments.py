"""Payments: each order is authorized or declined, always with the same result."""

import pytest
from faststream_otel import Service
from faststream_otel.testing import DeadLetter, Publish, ServiceFlow, Trace
from opentelemetry.trace import StatusCode

from {{ cookiecutter.package_name }}.channels import DECLINES, ORDERS, PAYMENTS
from {{ cookiecutter.package_name }}.contracts import OrderPlaced, PaymentDeclined
from {{ cookiecutter.package_name }}.services import payments

ORDER = OrderPlaced(
    order_id="1", sku="keyboard", quantity=1, amount_cents=12900, currency="EUR", country="FI"
)


@pytest.fixture
def services() -> list[Service]:
    """Only this service."""
    return [payments.service]


async def test_an_order_within_the_limit_is_authorized(
    publish: Publish, service_flow: ServiceFlow, trace: Trace
) -> None:
    await publish(ORDERS, ORDER)

    (authorized,) = service_flow.published(PAYMENTS)
    assert (authorized.order_id, authorized.country) == ("1", "FI")
    assert service_flow.published(DECLINES) == []
    assert trace.attributes("process orders.placed")["payment.outcome"] == "authorized"


async def test_a_declined_card_is_not_an_error(
    publish: Publish, service_flow: ServiceFlow, trace: Trace
) -> None:
    await publish(ORDERS, ORDER.model_copy(update={"amount_cents": 100_001}))

    assert service_flow.published(DECLINES) == [
        PaymentDeclined(order_id="1", reason="limit_exceeded")
    ]
    assert service_flow.published(PAYMENTS) == []
    span = trace.span("process orders.placed")
    assert span.status.status_code is StatusCode.UNSET
    assert [event.name for event in span.events] == ["payment declined"]


async def test_a_redelivered_order_gets_the_same_authorization(
    publish: Publish, service_flow: ServiceFlow
) -> None:
    await publish(ORDERS, ORDER)
    await publish(ORDERS, ORDER)

    first, second = service_flow.published(PAYMENTS)
    assert first == second


@pytest.mark.parametrize("message", [b"{not json", {"order_id": "1"}])
async def test_an_invalid_message_goes_to_the_dead_letters_at_once(
    publish: Publish, dead_letters: list[DeadLetter], message: object
) -> None:
    await publish(ORDERS, message)

    (dead_letter,) = dead_letters
    assert (dead_letter.channel, dead_letter.attempts) == (ORDERS, 1)
