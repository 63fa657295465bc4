"""Measure what a service of this library costs, to FastStream without telemetry.

Variants are interleaved in one run, each in its own process, over a real broker; the figures are
medians, and ratios within a round. It starts a Kafka from STACK_HOME, a RabbitMQ that is installed
and a NATS, or takes those that --broker names.
"""

import argparse
import asyncio
import datetime
import logging
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from . import page, parts
from .machine import machine
from .measured.brokers import BROKERS
from .parts import PARTS, Bench, chosen_of, say
from .run import Load, Wrong, measure
from .sink import Sink
from .sites import Site, Unavailable, served
from .variants import MEMORY, ROOT, VARIANTS

PACKAGES = ("faststream", "faststream-otel", "opentelemetry-sdk", "pydantic", "uvloop",
            "aiokafka", "aio-pika", "nats-py")  # fmt: skip
OUTPUT = ROOT / "build/bench.json"


def main() -> int:
    arguments = parser().parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it logs what it tries again
    # So that the servers and processes that it has started end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if arguments.page:
        page.write(page.read())
        return 0
    wanted: list[tuple[str, str]] = arguments.broker or [
        ("kafka", os.environ.get("BROKER_URL", ""))
    ]
    # With none named, all that this machine can start.
    others = wanted[1:] if arguments.broker else [(x, "") for x in BROKERS if x != "kafka"]
    try:
        with ExitStack() as stack:
            site = stack.enter_context(served(*wanted[0]))
            sink = stack.enter_context(Sink())
            if arguments.profile:
                load = Load(200 if arguments.quick else 2000)
                print(profile(site, sink, arguments.profile, load))
                return 0
            bench = Bench({wanted[0][0]: site}, sink, arguments.rounds, arguments.quick)
            figures = {}
            for name, part in run_parts(
                arguments.parts, bench, others, required=bool(arguments.broker)
            ):
                figures[name] = part
                keep(figures, save=arguments.save)
    except (Unavailable, Wrong) as error:
        raise SystemExit(str(error)) from error
    show(figures)
    return 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    made.add_argument(
        "--parts",
        type=chosen_of(PARTS),
        default=list(PARTS),
        metavar="NAME,…",
        help=f"what to measure (default: all): {', '.join(PARTS)}",
    )
    made.add_argument("--rounds", type=int, default=5, help="of all variants (default 5)")
    made.add_argument("--quick", action="store_true", help="for a look: a fifth of the messages")
    made.add_argument(
        "--broker",
        type=_broker,
        action="append",
        metavar="NAME[=HOST:PORT]",
        help=f"one of {', '.join(BROKERS)}, may be repeated: the first is for all parts, each for"
        " the part brokers. Default: kafka (at BROKER_URL, if set), and the others that can be"
        " started. RabbitMQ and NATS also take BROKER_USERNAME and BROKER_PASSWORD",
    )
    made.add_argument(
        "--save", action="store_true", help="write docs/cost.json, the charts and the pages' tables"
    )
    made.add_argument(
        "--page", action="store_true", help="only write charts and tables from docs/cost.json"
    )
    made.add_argument(
        "--profile",
        choices=VARIANTS | MEMORY,
        metavar="VARIANT",
        help="show where the CPU time of the event loop's thread goes, of one of"
        f" {', '.join(VARIANTS)}",
    )
    return made


def _broker(text: str) -> tuple[str, str]:
    name, _, url = text.partition("=")
    if name not in BROKERS:
        raise argparse.ArgumentTypeError(
            f"there is no broker {name!r}; use {', '.join(BROKERS)}, for example"
            " kafka=127.0.0.1:9092"
        )
    return name, url


def run_parts(
    names: Sequence[str], bench: Bench, others: Sequence[tuple[str, str]], *, required: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run parts one by one. Yields each one's name, and its result with what it was measured with.

    Args:
        others: Brokers for the part `brokers` alone, with their addresses.
        required: Whether one that cannot be had is an error.
    """
    for name in names:
        began = time.monotonic()
        rounds = parts.rounds(name, bench.rounds)
        say(f"{name} …")
        with ExitStack() as stack:
            if name == "brokers":
                sites = dict(bench.sites)
                for broker, url in others:
                    try:
                        sites[broker] = stack.enter_context(served(broker, url))
                    except Unavailable as error:
                        if required:
                            raise
                        say(f"  not measured: {error}")
                bench = replace(bench, sites=sites)
            part = {
                "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
                "machine": machine(),
                "versions": versions(list(bench.sites.values())),
                "rounds": rounds,
                "quick": bench.quick,
                "result": parts.run(name, replace(bench, rounds=rounds)),
            }
        say(f"  took {time.monotonic() - began:.0f} s")
        yield name, part


def keep(figures: dict[str, Any], *, save: bool) -> None:
    """Write what there is so far: a part may fail that comes later."""
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(page.text_of(figures), "utf-8")
    if save:
        page.write(page.read() | figures)


def versions(sites: Sequence[Site]) -> dict[str, str]:
    servers = {site.broker: asyncio.run(site.version()) for site in sites}
    return servers | {package: version(package) for package in PACKAGES}


def show(figures: dict[str, Any]) -> None:
    for name, part in figures.items():
        print(f"\n{page.measured_with(part)}\n")
        for block in parts.tables(name, part["result"]).values():
            print(f"{block}\n")


def profile(site: Site, sink: Sink, name: str, load: Load) -> str:
    """Shares of the event loop's thread, by part and by function."""
    found = measure((VARIANTS | MEMORY)[name], site, sink, load, profile=True).told["profile"]
    samples = sum(found["parts"].values())
    return "\n".join(
        f"{100 * number / samples:5.1f} %  {what}"
        for by in ("parts", "functions")
        for what, number in Counter(found[by]).most_common()
    )


if __name__ == "__main__":
    sys.exit(main())
