"""Handle a redelivered message without doing its work twice: delivery is at least once.

- `derived_id` derives an id from the message, so that a second delivery makes the same id. It can
  be the idempotency key of a request to a payment provider.
- `Done` remembers which effects have happened, for effects that must not be repeated.
"""

import uuid
from collections import OrderedDict

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_OID, __name__)


def derived_id(kind: str, key: str) -> str:
    """Derive an id from `key`: always the same one, a UUID version 5 (RFC 9562).

    >>> derived_id("payment", "42") == derived_id("payment", "42")
    True
    """
    return str(uuid.uuid5(_NAMESPACE, f"{kind}:{key}"))


class Done:
    """The keys of what this process did recently.

    It prevents a second mail to a customer after a rebalance or a retried batch, but not after a
    restart. A service with a database should store the key there instead, in the same transaction
    as the work.

    Args:
        most: How many keys to remember; the oldest are forgotten first.
    """

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._keys: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def add(self, key: str) -> None:
        """Remember this key; call it after the work is done."""
        self._keys[key] = None
        self._keys.move_to_end(key)
        if len(self._keys) > self._most:
            self._keys.popitem(last=False)
