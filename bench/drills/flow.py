"""The example's channels: their producers, their consumers, and where orders begin and end."""

PRODUCERS = {
    "orders.placed": "orders",
    "payments.authorized": "payments",
    "payments.declined": "payments",
    "shipments.dispatched": "shipping",
    "trial.done": "trial",
}
"""Each channel's one producer. A dead letter comes from the consumer of the channel it names."""

CONSUMERS = {
    "orders.placed": "payments",
    "payments.authorized": "shipping",
    "payments.declined": "notifications",
    "shipments.dispatched": "notifications",
    "trial.given": "trial",
}
"""Each channel's one consumer; its group is called `<service>.<channel>`."""

BATCHES = {"payments.declined", "shipments.dispatched"}
"""Channels that are consumed in batches: the batch's span links to each message."""

DEAD_LETTERS = "dead-letters"

STARTS = ("orders.placed", "trial.given")
"""Where an order begins."""

ENDS = {
    "shipments.dispatched": "good",
    "payments.declined": "declined",
    DEAD_LETTERS: "failing",
    "trial.done": "trial",
}
"""Where an order ends, and the kind of order that should end there."""

SERVICES = ("orders", "payments", "shipping", "notifications")
OTHERS = ("trial",)
"""Services for some drills only."""

INJECTED = "drill"
"""Header of messages that a drill sent, instead of a service of the example."""


def group(channel: str) -> str:
    """Return the consumer group of a channel's consumer."""
    return f"{CONSUMERS[channel]}.{channel}"
