"""Shipping: a paid order is dispatched, or ends in the dead letters."""

import pytest
from faststream_otel import Service
from faststream_otel.testing import DeadLetter, Publish, ServiceFlow

from {{ cookiecutter.package_name }}.channels import PAYMENTS, SHIPMENTS
from {{ cookiecutter.package_name }}.contracts import PaymentAuthorized
from {{ cookiecutter.package_name }}.services import shipping

PAYMENT = PaymentAuthorized(
    order_id="1", authorization_id="a", sku="keyboard", quantity=1, country="FI"
)


@pytest.fixture
def services() -> list[Service]:
    """Only this service."""
    return [shipping.service]


async def test_a_redelivered_payment_gets_the_same_tracking_id(
    publish: Publish, service_flow: ServiceFlow
) -> None:
    await publish(PAYMENTS, PAYMENT)
    await publish(PAYMENTS, PAYMENT)

    first, second = service_flow.published(SHIPMENTS)
    assert first == second
    assert first.carrier == "acme-express"


async def test_an_order_without_a_carrier_is_tried_three_times(
    publish: Publish, service_flow: ServiceFlow, dead_letters: list[DeadLetter]
) -> None:
    await publish(PAYMENTS, PAYMENT.model_copy(update={"country": "AQ"}))

    (dead_letter,) = dead_letters
    assert (dead_letter.channel, dead_letter.attempts) == (PAYMENTS, 3)
    assert dead_letter.error_type.endswith(".NoCarrierError")
    assert dead_letter.reason == "no carrier delivers to AQ"
    assert PaymentAuthorized.model_validate_json(dead_letter.body).order_id == "1"
    assert service_flow.published(SHIPMENTS) == []
