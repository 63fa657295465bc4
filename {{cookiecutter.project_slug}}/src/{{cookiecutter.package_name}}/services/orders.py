"""Takes orders over HTTP and places them on their way."""

import logging
import uuid
from functools import partial

from faststream.asgi import AsgiResponse, Request, get
from faststream.asgi.response import JSONResponse
from opentelemetry import trace

from .. import web
from ..channels import ORDERS
from ..contracts import OrderAccepted, OrderPlaced, OrderRequest
from ..http_limits import Scope, header_lines
from ..idempotency import derived_id
from ..idempotency_key import (
    BadKey,
    KeyInUse,
    KeyReused,
    MemoryKeyStore,
    fingerprint,
    once,
    parse_key,
)
from ..messaging import TooLarge, Unavailable
from ..openapi import document
from ..service import Service

logger = logging.getLogger(__name__)

service = Service("orders")
placed = service.publisher(ORDERS, OrderPlaced)
app = service.app


keys = MemoryKeyStore()


@web.post(OrderRequest)
async def place_order(order: OrderRequest, scope: Scope) -> AsgiResponse:
    """Accept an order; what becomes of it is told by events.

    The header Idempotency-Key makes it safe to try again; see the IETF's draft
    "The Idempotency-Key HTTP Header Field".
    """
    try:
        key = parse_key(header_lines(scope, "idempotency-key"))
        if key is None:
            answer = await _place(str(uuid.uuid4()), order)
        else:
            # A client that got no answer, or a 503, cannot know whether the order was placed. When
            # it tries again, at another replica or after a restart, it is the same order, which all
            # that follows takes for a second delivery.
            meant = fingerprint(order)
            order_id = derived_id("order", f"{key}:{meant}")
            answer = await once(keys, key, meant, partial(_place, order_id, order))
    except BadKey as error:
        return web.refusal(400, "Idempotency-Key", str(error))
    except KeyReused:
        return web.refusal(422, "Idempotency-Key", "was sent with another order before")
    except KeyInUse:
        reason = "was sent with a request that is still being answered, try again later"
        return web.refusal(409, "Idempotency-Key", reason)
    except TooLarge:
        return web.refusal(413, "body", "larger than the broker takes")
    except Unavailable as error:
        logger.error("Order refused, the broker is not available: %s", error)
        reason = "orders cannot be taken now, try again later"
        return web.refusal(503, "", reason, {"Retry-After": "5"})
    return JSONResponse(answer.encode(), 202)


async def _place(order_id: str, order: OrderRequest) -> str:
    """Publish the order; return the body of the answer."""
    await service.send(placed, OrderPlaced(order_id=order_id, **order.model_dump()))
    logger.info("Order %s placed", order_id)
    context = trace.get_current_span().get_span_context()
    trace_id = trace.format_trace_id(context.trace_id) if context.is_valid else ""
    return OrderAccepted(order_id=order_id, trace_id=trace_id).model_dump_json()


@get(include_in_schema=False)
async def openapi(request: Request) -> AsgiResponse:
    return JSONResponse(document())


service.route("/orders", place_order)
app.mount("/openapi.json", openapi)
