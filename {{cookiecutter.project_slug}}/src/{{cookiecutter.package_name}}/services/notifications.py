"""Tells customers what became of their orders, many at a time."""

import logging

from ..channels import DECLINES, SHIPMENTS
from ..contracts import OrderDispatched, PaymentDeclined
from ..service import Service

logger = logging.getLogger(__name__)

service = Service("notifications")
app = service.app


@service.subscriber(SHIPMENTS, batch=True)
async def tell_dispatched(orders: list[OrderDispatched]) -> None:
    """Notify of dispatched orders; idempotent, since a batch may come again."""
    for order in orders:
        logger.info("Customer of order %s notified: dispatched", order.order_id)


@service.subscriber(DECLINES, batch=True)
async def tell_declined(payments: list[PaymentDeclined]) -> None:
    """Notify of declined payments."""
    for payment in payments:
        logger.info("Customer of order %s notified: %s", payment.order_id, payment.reason)
