"""Dispatches paid orders."""

import logging

from faststream.opentelemetry import CurrentSpan
from faststream_otel import Service
from faststream_otel.idempotency import derived_id

from ..channels import PAYMENTS, SHIPMENTS
from ..contracts import OrderDispatched, PaymentAuthorized
from ..settings import Settings

NO_CARRIER = {"AQ"}  # Antarctica: such orders fail by design

logger = logging.getLogger(__name__)

service = Service("shipping", Settings())
app = service.app


class NoCarrierError(Exception):
    """No carrier takes the parcel now. Another attempt may succeed."""


@service.subscriber(PAYMENTS)
@service.publisher(SHIPMENTS)
async def dispatch(payment: PaymentAuthorized, span: CurrentSpan) -> OrderDispatched:
    """Hand the parcel to a carrier. The decorator publishes the returned event."""
    span.set_attribute("order.id", payment.order_id)
    if payment.country in NO_CARRIER:
        raise NoCarrierError(f"no carrier delivers to {payment.country}")
    logger.info("Order %s dispatched", payment.order_id)
    return OrderDispatched(
        order_id=payment.order_id,
        carrier="acme-express",
        tracking_id=derived_id("tracking", payment.order_id),
    )
