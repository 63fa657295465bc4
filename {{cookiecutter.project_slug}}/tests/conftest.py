"""Fixtures: the services, connected in memory by `faststream_otel.testing`."""

import os
from collections.abc import Awaitable, Callable, Sequence

import pytest
from faststream_otel import Service
from faststream_otel.testing import Client

from {{ cookiecutter.package_name }}.contracts import OrderAccepted

Place = Callable[..., Awaitable[OrderAccepted]]

ORDER = {"sku": "keyboard", "quantity": 1, "amount_cents": 12900, "country": "FI"}
DECLINED = {"amount_cents": 100_001}
FAILING = {"country": "AQ"}  # no carrier delivers there

# Services read their settings when they are imported, so these are set first.
for name in [name for name in os.environ if name.startswith("BROKER_")]:
    del os.environ[name]
os.environ["RETRY_BACKOFF_SECONDS"] = "0"


@pytest.fixture
def services() -> Sequence[Service]:
    """All services. Add new ones here."""
    from {{ cookiecutter.package_name }}.services import (
        notifications,
        orders,
        payments,
        shipping,
    )

    return [module.service for module in (orders, payments, shipping, notifications)]


@pytest.fixture
def place(http_client: Client) -> Place:
    """Place an order over HTTP. It returns when all handlers are done."""
    from {{ cookiecutter.package_name }}.services import orders

    async def place(*, key: str | None = None, **fields: object) -> OrderAccepted:
        answer = await http_client(orders.service).post(
            "/orders", json=ORDER | fields, headers={"Idempotency-Key": key} if key else {}
        )
        assert answer.status_code == 202, answer.text
        return OrderAccepted.model_validate_json(answer.content)

    return place
