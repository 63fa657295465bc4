"""The message broker, as the variable BROKER names it."""

import os

from matrix import OPTIONS


def chosen_broker() -> str:
    """Return the broker that BROKER asks for; the default one unless it does.

    Raises:
        ValueError: There is none of this name.
    """
    brokers = OPTIONS["broker"]
    broker = os.environ.get("BROKER") or brokers[0]
    if broker not in brokers:
        raise ValueError(f"BROKER={broker} is no broker: use one of {', '.join(brokers)}")
    return broker
