"""Messages that nobody consumes are counted while the service is down."""

import pytest

from .apis import Prometheus
from .load import place
from .poll import poll_until
from .stack import Stack

pytestmark = [pytest.mark.every_broker, pytest.mark.disturbs_the_stack]

SERVICE = "notifications"
CHANNEL = "shipments.dispatched"
LAG = f'sum(messaging_consumer_lag{{messaging_destination_template="{CHANNEL}"}})'
GROUPS = "count by (messaging_destination_template) (messaging_consumer_lag)"


def test_every_channel_has_a_group(prometheus: Prometheus) -> None:
    found = poll_until(lambda: prometheus.series(GROUPS), "consumer groups")
    assert {one["messaging_destination_template"] for one in found} == {
        "orders.placed",
        "payments.authorized",
        "payments.declined",
        CHANNEL,
    }


def test_lag_is_counted_while_the_service_is_down_and_gone_when_it_is_back(
    stack: Stack, prometheus: Prometheus
) -> None:
    with stack.without(SERVICE):
        assert place(stack.url("ORDERS_PORT"), 30) == 30
        poll_until(lambda: prometheus.values(f"{LAG} > 0"), f"lag of {SERVICE}")
    poll_until(lambda: prometheus.values(LAG) == [0.0], f"{SERVICE} to catch up")


def test_the_exporter_reaches_the_broker(prometheus: Prometheus) -> None:
    assert prometheus.values("messaging_broker_up") == [1.0]
