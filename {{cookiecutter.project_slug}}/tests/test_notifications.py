"""Notifications: each customer is notified once, even if a message is redelivered."""

import pytest
from faststream_otel import Service
from faststream_otel.testing import Publish, Trace

from {{ cookiecutter.package_name }}.channels import DECLINES, SHIPMENTS
from {{ cookiecutter.package_name }}.contracts import (
    Event,
    OrderDispatched,
    PaymentDeclined,
)
from {{ cookiecutter.package_name }}.services import notifications


@pytest.fixture
def services() -> list[Service]:
    """Only this service."""
    return [notifications.service]


@pytest.mark.parametrize(
    ("channel", "event", "notified"),
    [
        (
            SHIPMENTS,
            OrderDispatched(order_id="1", carrier="acme-express", tracking_id="t"),
            "Customer of order 1 notified: dispatched",
        ),
        (
            DECLINES,
            PaymentDeclined(order_id="2", reason="limit_exceeded"),
            "Customer of order 2 notified: limit_exceeded",
        ),
    ],
)
async def test_a_customer_is_notified_once(
    publish: Publish, trace: Trace, channel: str, event: Event, notified: str
) -> None:
    await publish(channel, event)
    await publish(channel, event)

    assert [log.message for log in trace.logs if "Customer" in log.message] == [notified]
