"""The channels that the services talk over; which broker carries them is `messaging`'s business."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

ORDERS = "orders.placed"
PAYMENTS = "payments.authorized"
DECLINES = "payments.declined"
SHIPMENTS = "shipments.dispatched"
DEAD_LETTERS = "dead-letters"

CHANNELS = (ORDERS, PAYMENTS, DECLINES, SHIPMENTS, DEAD_LETTERS)


class Publisher(Protocol):
    """A channel to publish to: decorates a handler, whose result it publishes, or publishes now."""

    def __call__(self, handler: Callable[..., Any], /) -> Callable[..., Any]: ...

    @property
    def publish(self) -> Callable[..., Awaitable[Any]]: ...
