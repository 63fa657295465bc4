"""Takes orders over HTTP and publishes them."""

import logging
import uuid
from functools import partial

from faststream_otel.http import HttpService, IdempotencyKey, MemoryKeyStore, fingerprint, once
from faststream_otel.idempotency import derived_id
from opentelemetry import trace

from ..channels import ORDERS
from ..contracts import OrderAccepted, OrderPlaced, OrderRequest
from ..settings import Settings

logger = logging.getLogger(__name__)

service = HttpService("orders", Settings())
placed = service.publisher(ORDERS, OrderPlaced)
app = service.app
keys = MemoryKeyStore()


@service.http.post("/orders", status_code=202)
async def place_order(order: OrderRequest, key: IdempotencyKey) -> OrderAccepted:
    """Accept an order; events tell what happens to it.

    The header Idempotency-Key makes it safe to try again; see the IETF's draft
    "The Idempotency-Key HTTP Header Field".
    """
    if key is None:
        return await _place(str(uuid.uuid4()), order)
    # A client that got no answer, or a 503, cannot know whether the order was placed. When it tries
    # again, at another replica or after a restart, it is the same order, which all that follows
    # takes for a second delivery.
    meant = fingerprint(order)
    order_id = derived_id("order", f"{key}:{meant}")
    return await once(keys, key, meant, partial(_place, order_id, order))


async def _place(order_id: str, order: OrderRequest) -> OrderAccepted:
    event = OrderPlaced(order_id=order_id, **order.model_dump())
    await service.send(placed, event, key=order_id)
    logger.info("Order %s placed", order_id)
    context = trace.get_current_span().get_span_context()
    trace_id = trace.format_trace_id(context.trace_id) if context.is_valid else ""
    return OrderAccepted(order_id=order_id, trace_id=trace_id)
