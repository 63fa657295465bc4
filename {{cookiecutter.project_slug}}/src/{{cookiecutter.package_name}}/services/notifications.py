"""Notifies customers of dispatched orders and declined payments, in batches."""

import logging

from faststream_otel import Service
from faststream_otel.idempotency import Done

from ..channels import DECLINES, SHIPMENTS
from ..contracts import OrderDispatched, PaymentDeclined
from ..settings import Settings

logger = logging.getLogger(__name__)

service = Service("notifications", Settings())
app = service.app
dispatched, declined = Done(), Done()


@service.subscriber(SHIPMENTS, batch=True)
async def notify_dispatched(orders: list[OrderDispatched]) -> None:
    """Notify customers of dispatched orders, only once even if a batch is redelivered."""
    for order in orders:
        if order.tracking_id not in dispatched:
            logger.info("Customer of order %s notified: dispatched", order.order_id)
            dispatched.add(order.tracking_id)


@service.subscriber(DECLINES, batch=True)
async def notify_declined(payments: list[PaymentDeclined]) -> None:
    """Notify customers of declined payments, only once even if a batch is redelivered."""
    for payment in payments:
        if payment.order_id not in declined:
            logger.info("Customer of order %s notified: %s", payment.order_id, payment.reason)
            declined.add(payment.order_id)
