"""`make load`: a steady, bounded stream of mixed orders."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Semaphore

from rich.console import Console

from ..project import UserError
from .orders import mixed, place

WORKERS = 16


def run(console: Console, url: str, rate: float, seconds: float) -> None:
    """Place so many orders per second for so many seconds, or until interrupted.

    An order whose turn comes while too many are under way is left out, rather than piled up, and
    counted.

    Raises:
        UserError: The service does not take the first order.
    """
    place(url, mixed(0, 0))
    total = round(rate * seconds)
    outcomes: Counter[str] = Counter()
    console.print(
        f"{rate:g} orders per second to {url} for {seconds:g} s: about 10 % declined, 2 % failing."
        " Ctrl-C ends it.",
        highlight=False,
    )
    free = Semaphore(2 * WORKERS)

    def send() -> None:
        try:
            place(url, mixed())
            outcomes["accepted"] += 1
        except UserError as error:
            outcomes[str(error)] += 1
        finally:
            free.release()

    begun = time.monotonic()
    told = begun
    try:
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="load") as pool:
            for number in range(total):
                time.sleep(max(0.0, begun + number / rate - time.monotonic()))
                if free.acquire(blocking=False):
                    pool.submit(send)
                else:
                    outcomes["left out, too many were under way"] += 1
                if time.monotonic() - told >= 5:
                    told = time.monotonic()
                    _report(console, outcomes, told - begun)
    finally:
        _report(console, outcomes, time.monotonic() - begun)


def _report(console: Console, outcomes: Counter[str], seconds: float) -> None:
    accepted = outcomes["accepted"]
    others = {name: count for name, count in outcomes.items() if name != "accepted"}
    console.print(
        f"{seconds:5.0f} s  {accepted} accepted ({accepted / max(seconds, 0.001):.1f}/s)"
        + "".join(f"\n         {count} x {name}" for name, count in others.items()),
        highlight=False,
        markup=False,
    )
