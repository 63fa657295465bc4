"""Authorizes the payment of each order, or declines it."""

import logging

from faststream.opentelemetry import CurrentSpan
from faststream_otel import Service
from faststream_otel.idempotency import derived_id

from ..channels import DECLINES, ORDERS, PAYMENTS
from ..contracts import OrderPlaced, PaymentAuthorized, PaymentDeclined
from ..settings import Settings

CARD_LIMIT_CENTS = 100_000

logger = logging.getLogger(__name__)

service = Service("payments", Settings())
authorized = service.publisher(PAYMENTS, PaymentAuthorized)
declined = service.publisher(DECLINES, PaymentDeclined)
app = service.app


@service.subscriber(ORDERS)
async def authorize(order: OrderPlaced, span: CurrentSpan) -> None:
    """Authorize the order's amount. A declined card is a result, not an error.

    A redelivered order gets the same result and the same authorization id.
    """
    span.set_attribute("order.id", order.order_id)
    accepted = check_card(order.amount_cents)
    span.set_attribute("payment.outcome", "authorized" if accepted else "declined")
    if accepted:
        authorization = PaymentAuthorized(
            authorization_id=derived_id("authorization", order.order_id),
            **order.model_dump(include={"order_id", "sku", "quantity", "country"}),
        )
        logger.info("Payment of order %s authorized", order.order_id)
        await service.send(authorized, authorization, key=order.order_id)
    else:
        span.add_event("payment declined", {"payment.reason": "limit_exceeded"})
        logger.info("Payment of order %s declined", order.order_id)
        decline = PaymentDeclined(order_id=order.order_id, reason="limit_exceeded")
        await service.send(declined, decline, key=order.order_id)


def check_card(amount_cents: int) -> bool:
    """Stands in for the call to a payment provider, with its own span."""
    with service.tracer.start_as_current_span("authorize card") as span:
        span.set_attribute("payment.amount_cents", amount_cents)
        return amount_cents <= CARD_LIMIT_CENTS
