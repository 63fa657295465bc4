"""Tells customers what became of their orders, many at a time."""

import logging

from ..channels import DECLINES, SHIPMENTS
from ..contracts import OrderDispatched, PaymentDeclined
from ..idempotency import Done
from ..service import Service

logger = logging.getLogger(__name__)

service = Service("notifications")
app = service.app
told = Done()


@service.subscriber(SHIPMENTS, batch=True)
async def tell_dispatched(orders: list[OrderDispatched]) -> None:
    """Notify of dispatched orders; of each once, though a batch may come again."""
    for order in orders:
        if order.tracking_id not in told:
            logger.info("Customer of order %s notified: dispatched", order.order_id)
            told.add(order.tracking_id)


@service.subscriber(DECLINES, batch=True)
async def tell_declined(payments: list[PaymentDeclined]) -> None:
    """Notify of declined payments; of each once."""
    for payment in payments:
        if payment.order_id not in told:
            logger.info("Customer of order %s notified: %s", payment.order_id, payment.reason)
            told.add(payment.order_id)
