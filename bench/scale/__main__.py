"""Measure in Docker what a growing load costs, and calculate what a rate of orders needs.

It takes about ten minutes on two idle cores, in a Compose project of its own, which it removes.
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
from ..parts import chosen_of, say
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
        print(page.answer(page.read(), arguments.rate, arguments.wait / 1000))
        return 0
    # On SIGTERM, for example by a timeout, clean up as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    try:
        figures = measure(arguments.parts, quick=arguments.quick)
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
    made.add_argument(
        "--parts",
        type=chosen_of(PARTS),
        default=list(PARTS),
        metavar="NAME,…",
        help=f"measure only these, and take the others from docs/scale.json: {', '.join(PARTS)}",
    )
    made.add_argument(
        "--quick", action="store_true", help="a quick look, with a third of the orders"
    )
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
        help="only calculate from docs/scale.json what this many orders per second need",
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
            f"{text!r} is not a number of orders per second, such as 2500"
        )
    return rate


def measure(parts: Sequence[str], *, quick: bool) -> dict[str, Any]:
    """Run these parts on one stack, which is removed at the end.

    Returns:
        Their figures. Those of other parts are as they were.
    """
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        site = Site.make(Path(folder), quick=quick)
        with site.stack.with_images():
            say("starting …")
            site.start(drains.STEPS[0])
            figures: dict[str, Any] = {} if set(parts) >= set(PARTS) else page.read()
            figures |= {
                "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
                "machine": machine(),
                "versions": site.versions(),
                "quick": quick,
                "limits": site.limits(),
            }
            for name, part in PARTS.items():
                if name not in parts:
                    continue
                say(f"{name} …")
                figures[name] = part(site, figures)
                if dead := site.dead_letters():
                    raise AssertionError(
                        f"{dead} messages became dead letters, so the figures would be wrong"
                    )
                OUTPUT.parent.mkdir(exist_ok=True)
                OUTPUT.write_text(page.text_of(figures), "utf-8")
            return figures


PARTS: Mapping[str, Callable[[Site, Mapping[str, Any]], Any]] = {
    "cost": lambda site, _: cost.run(site),
    "drains": lambda site, _: drains.run(site),
    "layers": cost.layered,
    "tail": cost.sampled,
    "partitions": lambda site, _: drains.many_partitions(site),
}
"""What is measured, one after the other, with the figures so far."""


if __name__ == "__main__":
    sys.exit(main())
