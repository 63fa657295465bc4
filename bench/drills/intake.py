"""Places orders at a steady rate, and records the response to each."""

import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

from e2e.load import SHARES, some_order

from .accounting import Placed

TIMEOUT_SECONDS = 30.0
PAUSE_SECONDS = 0.1  # after a broken connection, as a sender would
MOST_AT_ONCE = 400  # orders wait 5 s for their response while the broker is down


class Intake:
    """Places `rate` orders a second inside its `with` block.

    An order is not retried after a response, or if the service may have accepted it. If no
    connection is possible, it goes to the next address.

    Args:
        ports: Ports of the service's replicas.
        rate: Orders per second; an order that waits for its response does not delay others.
        shares: Shares of the kinds of orders.
        host: The ports' address.
    """

    def __init__(
        self, ports: Sequence[int], rate: float, shares: Mapping[str, float] = SHARES,
        host: str = "127.0.0.1",
    ) -> None:  # fmt: skip
        self.rate = rate
        self._shares = shares
        self._free = threading.Semaphore(MOST_AT_ONCE)
        self.sent = 0
        self.placed: list[Placed] = []
        """Acknowledged orders."""
        self.refusals: Counter[str] = Counter()
        """Responses other than 202, by status."""
        self.unreachable = 0
        """Orders for which no address accepted a connection."""
        self.unanswered = 0
        """Orders that were sent, but whose connection broke before a response."""
        self._ports = ports
        self._host = host
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self.started = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def rate_reached(self) -> float:
        """Orders sent per second, from the first to the last."""
        return self.sent / max(self._seconds, 1e-9)

    def described(self) -> str:
        """Describe what was not acknowledged, if anything."""
        parts = [f"{count} x {what}" for what, count in sorted(self.refusals.items())]
        if self.unreachable:
            parts.append(f"{self.unreachable} found nobody listening")
        if self.unanswered:
            parts.append(f"{self.unanswered} unanswered")
        return ", ".join(parts)

    def _run(self) -> None:
        with ThreadPoolExecutor(MOST_AT_ONCE) as pool:
            while not self._stop.wait(max(0.0, self._next() - time.monotonic())):
                self._free.acquire()
                pool.submit(self._place).add_done_callback(lambda _: self._free.release())
                self.sent += 1
            self._seconds = time.monotonic() - self.started

    def _next(self) -> float:
        return self.started + self.sent / self.rate

    def _place(self) -> None:
        kind, order = some_order(self._shares)
        answer = self._post(json.dumps(order).encode())
        if answer is None:
            return
        status, headers, body = answer
        with self._lock:
            if status == 202:
                accepted = json.loads(body)
                self.placed.append(
                    Placed(accepted["order_id"], accepted["trace_id"], kind, time.time())
                )
            elif status == 503 and "retry-after" not in headers:
                self.refusals["503 without Retry-After"] += 1
            else:
                self.refusals[str(status)] += 1

    def _post(self, body: bytes) -> tuple[int, set[str], bytes] | None:
        for port in random.sample(self._ports, len(self._ports)):
            connection = http.client.HTTPConnection(self._host, port, timeout=TIMEOUT_SECONDS)
            try:
                connection.connect()
            except OSError:
                continue
            try:
                return _exchange(connection, body)
            except (OSError, http.client.HTTPException):
                with self._lock:
                    self.unanswered += 1
                time.sleep(PAUSE_SECONDS)
                return None
            finally:
                connection.close()
        with self._lock:
            self.unreachable += 1
        time.sleep(PAUSE_SECONDS)
        return None


def _exchange(connection: Any, body: bytes) -> tuple[int, set[str], bytes]:
    connection.request("POST", "/orders", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, {name.lower() for name in answer.headers}, answer.read()
