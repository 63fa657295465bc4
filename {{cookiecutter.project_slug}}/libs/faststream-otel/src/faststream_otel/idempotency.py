"""Doing a thing once, though its message may come again: delivery is at least once.

Two ways are shown by the example. What can be derived from the message is derived, so that the
second time gives the same (`derived_id`); a payment provider takes such an id as its idempotency
key. What has an effect that cannot be repeated is remembered (`Done`).
"""

import uuid
from collections import OrderedDict

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_OID, __name__)


def derived_id(kind: str, key: str) -> str:
    """The identifier of what follows from `key`: the same each time, a UUID version 5 (RFC 9562).

    >>> derived_id("payment", "42") == derived_id("payment", "42")
    True
    """
    return str(uuid.uuid5(_NAMESPACE, f"{kind}:{key}"))


class Done:
    """What this process has done of late.

    It spares a customer the second mail after a rebalance or a retried batch, not after a restart:
    a service that has a database records the key there, in the transaction that does the thing.

    Args:
        most: Keys that are remembered; the oldest are forgotten first.
    """

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._keys: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def add(self, key: str) -> None:
        """Remember that it is done, once it is."""
        self._keys[key] = None
        self._keys.move_to_end(key)
        if len(self._keys) > self._most:
            self._keys.popitem(last=False)
