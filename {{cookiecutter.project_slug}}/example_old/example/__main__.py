"""`python -m devtools.example <command>`, from the project's folder; see the Makefile."""

import argparse
import sys

from ..cli import Commands, number_between


def main(arguments: list[str] | None = None) -> int:
    commands = Commands("python -m devtools.example", "Orders for the example's services.")
    add = commands.add

    add("demo", _demo, "run every service without Docker, send three orders, show their traces")

    order = add("order", _order, "place an order, and show where its trace is")
    order.add_argument("--sku", default="keyboard")
    order.add_argument("--quantity", type=int, default=1)
    order.add_argument("--amount-cents", type=int, default=12_900, help="above 100000: declined")
    order.add_argument("--currency", default="EUR")
    order.add_argument("--country", default="FI", help="AQ: fails, there is no carrier")
    order.add_argument("--no-wait", action="store_true", help="do not wait for the trace")

    load = add("load", _load, "place mixed orders at a steady rate", endless=True)
    load.add_argument("--rate", type=number_between(0.1, 200), default=5.0, help="orders a second")
    load.add_argument("--duration", type=number_between(1, 86_400), default=60.0, help="seconds")
    return commands.run(arguments)


def _demo(options: argparse.Namespace) -> None:
    from rich.console import Console

    from . import demo

    demo.run(Console())


def _order(options: argparse.Namespace) -> None:
    from rich.console import Console

    from .. import backend, trace
    from .orders import Order, place, url

    console = Console()
    order = Order(
        options.sku, options.quantity, options.amount_cents, options.currency, options.country
    )
    placed = place(url(), order)
    print(f"order  {placed.order_id}")
    if not placed.trace_id:
        print("It has no trace: tracing is off.")
        return
    print(f"trace  {placed.trace_id}")
    if not trace.is_running():
        print("Its trace is shown where `make dev` runs; in Grafana once `make up` does.")
    elif options.no_wait:
        print(*trace.links(placed.trace_id), sep="\n")
    elif not trace.show(console, placed.trace_id):
        print(f"None of its spans has come to {backend.NAME} yet.")


def _load(options: argparse.Namespace) -> None:
    from rich.console import Console

    from . import load
    from .orders import url

    load.run(Console(), url(), options.rate, options.duration)


if __name__ == "__main__":
    sys.exit(main())
