"""Messages like those of the example's services, for drills to send."""

import json
import secrets
import uuid
from collections.abc import Mapping
from typing import Any

from .accounting import Header
from .channels import Message
from .flow import INJECTED

BODIES: Mapping[str, Mapping[str, Any]] = {
    "orders.placed": {
        "version": 1, "sku": "keyboard", "quantity": 1, "amount_cents": 12900, "currency": "EUR",
        "country": "FI",
    },
    "payments.authorized": {
        "version": 1, "authorization_id": "a", "sku": "keyboard", "quantity": 1, "country": "FI",
    },
    "shipments.dispatched": {"version": 1, "carrier": "acme-express", "tracking_id": "t"},
    "trial.given": {"version": 1, "act": "succeed"},
}  # fmt: skip
"""A good message of each channel, without its order id."""


def body(channel: str, **changes: Any) -> dict[str, Any]:
    return {"order_id": str(uuid.uuid4()), **BODIES[channel], **changes}


def traceparent() -> str:
    """Return a traceparent header of a new sampled trace."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def message(
    channel: str,
    value: bytes | dict[str, Any] | None = b"",
    headers: Mapping[str, bytes | None] | None = None,
    *more: Header,
    **options: Any,
) -> Message:
    """Make a message in its own trace.

    Args:
        value: The body; a dictionary becomes JSON.
        headers: In addition to the usual ones; None leaves out a usual one.
        more: Further headers, as the broker has them: None is null, names may repeat.
        options: Fields of `Message`.
    """
    if isinstance(value, dict):
        options.setdefault("key", str(value.get("order_id", "")).encode())
        value = json.dumps(value).encode()
    usual: dict[str, bytes | None] = {
        INJECTED: b"1",
        "content-type": b"application/json",
        "traceparent": traceparent().encode(),
    }
    merged = {**usual, **(headers or {})}
    each = [(name, one) for name, one in merged.items() if one is not None]
    return Message(channel, value, [*each, *more], **options)
