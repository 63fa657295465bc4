"""Takes orders over HTTP and places them on their way."""

import logging
import uuid
from functools import partial

from faststream.asgi import AsgiResponse, HttpHandler, Request, get
from faststream.asgi.request import ClientDisconnectError
from faststream.asgi.response import JSONResponse
from opentelemetry import trace
from pydantic import ValidationError

from ..channels import ORDERS
from ..contracts import OrderAccepted, OrderPlaced, OrderRequest
from ..idempotency import derived_id
from ..messaging import TooLarge, Unavailable
from ..openapi import document
from ..service import Service

MAX_KEY_CHARACTERS = 255
MAX_ERRORS = 20  # told of one body, however many it has

logger = logging.getLogger(__name__)

service = Service("orders")
placed = service.publisher(ORDERS, OrderPlaced)
app = service.app


@partial(HttpHandler, methods=("POST",))  # `post` takes HEAD too, which must not place an order
async def place_order(request: Request) -> AsgiResponse:
    """Accept an order; what becomes of it is told by events.

    The header Idempotency-Key makes it safe to try again; see the IETF's draft
    "The Idempotency-Key HTTP Header Field".
    """
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > service.settings.max_body_bytes:
                return _refusal(413, "body", f"larger than {service.settings.max_body_bytes} bytes")
    except ClientDisconnectError:
        return _refusal(400, "body", "not sent to its end")  # told to the span, nobody else listens
    try:
        order = OrderRequest.model_validate_json(bytes(body))
    except ValidationError as error:
        return JSONResponse(
            {
                "errors": [
                    {"field": ".".join(map(str, one["loc"])) or "body", "reason": one["msg"]}
                    for one in error.errors(include_url=False)[:MAX_ERRORS]
                ]
            },
            422,
        )
    # A client that got no answer, or a 503, cannot know whether the order was placed. With the same
    # key its next attempt is the same order, which all that follows takes for a second delivery.
    key = request.headers.get("Idempotency-Key", "")
    if len(key) > MAX_KEY_CHARACTERS:
        return _refusal(
            400, "Idempotency-Key", f"longer than {MAX_KEY_CHARACTERS} characters; a UUID will do"
        )
    order_id = derived_id("order", key) if key else str(uuid.uuid4())
    event = OrderPlaced(order_id=order_id, **order.model_dump())
    try:
        await service.send(placed, event)
    except TooLarge:
        return _refusal(413, "body", "larger than the broker takes")
    except Unavailable as error:
        logger.error("Order refused, the broker is not available: %s", error)
        return JSONResponse(
            {"errors": [{"field": "", "reason": "orders cannot be taken now, try again later"}]},
            503,
            {"Retry-After": "5"},
        )
    logger.info("Order %s placed", event.order_id)
    context = trace.get_current_span().get_span_context()
    trace_id = trace.format_trace_id(context.trace_id) if context.is_valid else ""
    return JSONResponse(OrderAccepted(order_id=event.order_id, trace_id=trace_id).model_dump(), 202)


def _refusal(status: int, field: str, reason: str) -> AsgiResponse:
    return JSONResponse({"errors": [{"field": field, "reason": reason}]}, status)


@get(include_in_schema=False)
async def openapi(request: Request) -> AsgiResponse:
    return JSONResponse(document())


service.route("/orders", place_order)
app.mount("/openapi.json", openapi)
