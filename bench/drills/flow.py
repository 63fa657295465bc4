"""Who sends what to whom in the example: what a record in a topic means, and what it must leave."""

PRODUCERS = {
    "orders.placed": "orders",
    "payments.authorized": "payments",
    "payments.declined": "payments",
    "shipments.dispatched": "shipping",
    "trial.done": "trial",
}
"""Each topic's one producer; dead letters come from whoever consumes the topic that they name."""

CONSUMERS = {
    "orders.placed": "payments",
    "payments.authorized": "shipping",
    "payments.declined": "notifications",
    "shipments.dispatched": "notifications",
    "trial.given": "trial",
}
"""Each topic's one consumer; its group is called `<service>.<topic>`."""

BATCHES = {"payments.declined", "shipments.dispatched"}
"""Topics that are consumed many messages at a time: a span links to each of them."""

DEAD_LETTERS = "dead-letters"

STARTS = ("orders.placed", "trial.given")
"""Where an order's way begins."""

ENDS = {
    "shipments.dispatched": "good",
    "payments.declined": "declined",
    DEAD_LETTERS: "failing",
    "trial.done": "trial",
}
"""Where an order's way ends, and the kind of order that is meant to end there."""

SERVICES = ("orders", "payments", "shipping", "notifications")
OTHERS = ("trial",)
"""What is there for some drills only."""

INJECTED = "drill"
"""The header by which a message says that a drill put it there, and no service of the example."""


def group(topic: str) -> str:
    """Return the consumer group of a topic's consumer."""
    return f"{CONSUMERS[topic]}.{topic}"
