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
    """Accept an order, and publish it. Later events report its progress.

    The Idempotency-Key header makes it safe to repeat a request; see the IETF draft "The
    Idempotency-Key HTTP Header Field".
    """
    if key is None:
        return await _place(str(uuid.uuid4()), order)
    # A client that got no response, or a 503, cannot know whether its order was placed. It may try
    # again at another replica. The id is derived from key and order, so that it is the same there,
    # and later services handle it as a redelivery.
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
