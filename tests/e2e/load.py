"""Orders in the background, and spans in a flood; both bounded in number and time."""

import json
import random
import secrets
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

from .apis import post
from .tables import ORDERS

SHARES = {"good": 0.8, "declined": 0.15, "failing": 0.05}


def some_order(shares: Mapping[str, float] = SHARES) -> tuple[str, dict[str, Any]]:
    """Draw an order; return how it is meant to end, too.

    Args:
        shares: How often each end is meant, as weights.
    """
    (kind,) = random.choices([*shares], [*shares.values()])
    sku = random.choice(["keyboard", "mouse", "screen"])
    return kind, {"sku": sku, "quantity": 1, "currency": "EUR", **ORDERS[kind]}


def place(url: str, count: int, workers: int = 8) -> int:
    """Place so many orders as fast as they are taken; return how many were."""
    with ThreadPoolExecutor(workers) as pool:
        return sum(pool.map(lambda _: _accepted(url), range(count)))


class Load:
    """A context: orders flow at `rate` per second while it is open, for `seconds` at most."""

    def __init__(self, url: str, rate: float = 20.0, seconds: float = 600.0) -> None:
        self._url = url
        self._pause = 1 / rate
        self._ends = time.monotonic() + seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with ThreadPoolExecutor(8) as pool:
            while time.monotonic() < self._ends and not self._stop.wait(self._pause):
                pool.submit(_accepted, self._url)


def _accepted(url: str) -> bool:
    _, order = some_order()
    try:
        return post(url + "/orders", order).status == 202
    except OSError:  # a service that is being restarted
        return False


def flood(otlp: str, most: int = 100, spans: int = 2000, seconds: float = 45.0) -> None:
    """Send spans to a Collector whose trace store is away until its queue is full, then a few more.

    Args:
        most: So many times `spans` are sent at most, if nothing is refused.
        seconds: For how long it goes on after that, as senders do that try again.

    Raises:
        AssertionError: It took all of them.
    """
    sent = 0
    while sent < most and not _is_refused(otlp, spans):
        sent += 1
    assert sent < most, f"{most * spans} spans were taken while the trace store was away"
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        _is_refused(otlp, spans)
        time.sleep(5)


def _is_refused(otlp: str, spans: int) -> bool:
    body = json.dumps({"resourceSpans": [_spans(spans)]}).encode()
    request = urllib.request.Request(
        f"{otlp}/v1/traces", body, {"Content-Type": "application/json"}
    )
    try:
        urllib.request.urlopen(request, timeout=30).close()
    except urllib.error.HTTPError as error:
        if error.code not in {429, 503}:  # others mean that it is no fault of the Collector's
            raise
        return True
    return False


def _spans(count: int) -> dict[str, Any]:
    """One trace of so many spans of a service of its own."""
    trace_id, now = secrets.token_hex(16), time.time_ns()
    spans = [
        {
            "traceId": trace_id,
            "spanId": f"{number + 1:016x}",
            "name": "flood",
            "kind": 1,
            "startTimeUnixNano": str(now),
            "endTimeUnixNano": str(now + 1_000_000),
        }
        for number in range(count)
    ]
    name = {"key": "service.name", "value": {"stringValue": "flood"}}
    return {"resource": {"attributes": [name]}, "scopeSpans": [{"spans": spans}]}
