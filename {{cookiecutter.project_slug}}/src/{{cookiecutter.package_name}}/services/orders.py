"""Takes orders over HTTP and places them on their way."""

import logging
import uuid

from faststream.asgi import AsgiResponse, Request, get
from faststream.asgi.response import JSONResponse
from opentelemetry import trace

from .. import web
from ..channels import ORDERS
from ..contracts import MAX_KEY_CHARACTERS, OrderAccepted, OrderPlaced, OrderRequest
from ..idempotency import derived_id
from ..messaging import TooLarge, Unavailable
from ..openapi import document
from ..service import Service

logger = logging.getLogger(__name__)

service = Service("orders")
placed = service.publisher(ORDERS, OrderPlaced)
app = service.app


@web.post(OrderRequest, service.settings)
async def place_order(order: OrderRequest, request: Request) -> AsgiResponse:
    """Accept an order; what becomes of it is told by events.

    The header Idempotency-Key makes it safe to try again; see the IETF's draft
    "The Idempotency-Key HTTP Header Field".
    """
    # A client that got no answer, or a 503, cannot know whether the order was placed. With the same
    # key its next attempt is the same order, which all that follows takes for a second delivery.
    key = request.headers.get("idempotency-key", "")  # as FastStream writes it
    if len(key) > MAX_KEY_CHARACTERS:
        reason = f"longer than {MAX_KEY_CHARACTERS} characters; a UUID will do"
        return web.refusal(400, "Idempotency-Key", reason)
    order_id = derived_id("order", key) if key else str(uuid.uuid4())
    event = OrderPlaced(order_id=order_id, **order.model_dump())
    try:
        await service.send(placed, event)
    except TooLarge:
        return web.refusal(413, "body", "larger than the broker takes")
    except Unavailable as error:
        logger.error("Order refused, the broker is not available: %s", error)
        reason = "orders cannot be taken now, try again later"
        return web.refusal(503, "", reason, {"Retry-After": "5"})
    logger.info("Order %s placed", event.order_id)
    context = trace.get_current_span().get_span_context()
    trace_id = trace.format_trace_id(context.trace_id) if context.is_valid else ""
    return JSONResponse(OrderAccepted(order_id=event.order_id, trace_id=trace_id).model_dump(), 202)


@get(include_in_schema=False)
async def openapi(request: Request) -> AsgiResponse:
    return JSONResponse(document())


service.route("/orders", place_order)
app.mount("/openapi.json", openapi)
