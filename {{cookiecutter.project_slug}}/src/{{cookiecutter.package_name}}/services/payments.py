"""Authorizes the payment of each order, or declines it."""

import logging

from faststream.opentelemetry import CurrentSpan

from ..channels import DECLINES, ORDERS, PAYMENTS
from ..contracts import OrderPlaced, PaymentAuthorized, PaymentDeclined
from ..idempotency import derived_id
from ..service import Service

CARD_LIMIT_CENTS = 100_000

logger = logging.getLogger(__name__)

service = Service("payments")
authorized = service.publisher(PAYMENTS, PaymentAuthorized)
declined = service.publisher(DECLINES, PaymentDeclined)
app = service.app


@service.subscriber(ORDERS)
async def authorize(order: OrderPlaced, span: CurrentSpan) -> None:
    """Authorize the order's amount; a declined card is an answer, not an error.

    An order that comes again gets the same answer and the same authorization.
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
        await service.send(authorized, authorization)
    else:
        span.add_event("payment declined", {"payment.reason": "limit_exceeded"})
        logger.info("Payment of order %s declined", order.order_id)
        await service.send(
            declined, PaymentDeclined(order_id=order.order_id, reason="limit_exceeded")
        )


def check_card(amount_cents: int) -> bool:
    """Stands for the call to a payment provider, in a span of its own."""
    with service.tracer.start_as_current_span("authorize card") as span:
        span.set_attribute("payment.amount_cents", amount_cents)
        return amount_cents <= CARD_LIMIT_CENTS
