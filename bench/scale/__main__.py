"""Measure what the baked project takes as it grows, in Docker, and say what a rate of orders needs.

It runs for less than ten minutes on two cores, in a project of its own, which it removes.
"""

import argparse
import datetime
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..machine import machine
from ..parts import say
from ..variants import ROOT
from . import cost, drains, page
from .meters import NoEngine
from .site import Site

OUTPUT = ROOT / "build/scale.json"


def main() -> int:
    arguments = parser().parse_args()
    if arguments.page:
        page.write(page.read())
        return 0
    if arguments.rate:
        print(page.needs_of(page.read(), arguments.rate, wait=arguments.wait / 1000))
        return 0
    # On SIGTERM, for example by a timeout, clean up as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    try:
        figures = measure(quick=arguments.quick)
    except NoEngine as error:
        raise SystemExit(str(error)) from error
    say(f"took {time.monotonic() - began:.0f} s")
    if arguments.save:
        page.write(figures)
    for block in page.blocks(figures).values():
        print(f"{block}\n")
    return 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="make scale ARGS=…", description=__doc__)
    made.add_argument("--quick", action="store_true", help="for a look: a third of the orders")
    made.add_argument(
        "--save",
        action="store_true",
        help="write docs/scale.json, the charts and the page's tables",
    )
    made.add_argument(
        "--page", action="store_true", help="only write charts and tables from docs/scale.json"
    )
    made.add_argument(
        "--for",
        type=_rate,
        dest="rate",
        metavar="ORDERS",
        help="measure nothing, and say what so many orders per second need, by docs/scale.json",
    )
    made.add_argument(
        "--wait",
        type=float,
        default=0,
        metavar="MS",
        help="with --for: milliseconds that a handler waits for others, such as a database",
    )
    return made


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0
    if not 0 < rate < 1e9:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of orders per second; a good one is 2500"
        )
    return rate


def measure(*, quick: bool) -> dict[str, Any]:
    """Run everything on one stack, which is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        site = Site.make(Path(folder), quick=quick)
        with site.stack.with_images():
            say("starting …")
            site.start(drains.STEPS[0])
            figures: dict[str, Any] = {
                "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
                "machine": machine(),
                "versions": site.versions(),
                "quick": quick,
                "limits": site.limits(),
            }
            for name, what, part in PARTS:
                say(f"{what} …")
                figures[name] = part(site, figures)
                if dead := site.dead_letters():
                    raise AssertionError(f"{dead} messages became dead letters: not measured")
                OUTPUT.parent.mkdir(exist_ok=True)
                OUTPUT.write_text(page.text_of(figures), "utf-8")
            return figures


PARTS: Sequence[tuple[str, str, Callable[[Site, Mapping[str, Any]], Any]]] = (
    ("cost", "orders over HTTP", lambda site, _: cost.run(site)),
    ("drains", "a backlog", lambda site, _: drains.run(site)),
    ("layers", "two layers of Collectors", lambda site, so_far: cost.layered(site, so_far)),
    ("tail", "tail sampling", lambda site, so_far: cost.sampled(site, so_far)),
    ("partitions", "many partitions", lambda site, _: drains.many_partitions(site)),
)
"""What is measured, one after the other: its name among the figures, and what it is."""


if __name__ == "__main__":
    sys.exit(main())
