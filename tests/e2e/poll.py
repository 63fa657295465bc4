"""Waiting for what arrives in its own time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE_SECONDS = 90.0
INTERVAL_SECONDS = 0.5


def poll_until(check: Callable[[], T | None], what: str, deadline: float = DEADLINE_SECONDS) -> T:
    """Return the first truthy answer of `check`.

    Args:
        check: Asked about twice a second. An OSError (a refused connection, an HTTP error status)
            counts as "not yet".
        what: What is waited for, for the message.
        deadline: Seconds.

    Raises:
        AssertionError: Nothing came in time; it says what, and what the last answer was.
    """
    ends = time.monotonic() + deadline
    while True:
        last: object
        try:
            answer = check()
            if answer:
                return answer
            last = answer
        except OSError as error:
            last = error
        if time.monotonic() > ends:
            raise AssertionError(f"waited {deadline:.0f} s for {what}; last answer: {last!r}")
        time.sleep(INTERVAL_SECONDS)
