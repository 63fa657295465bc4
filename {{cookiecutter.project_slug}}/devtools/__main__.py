"""`python -m devtools <command>`, from the project's folder; the Makefile names the commands."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from .project import UserError, port
from .supervisor import orderly_signals


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], None] = options.run
    try:
        with orderly_signals():
            command(options)
    except KeyboardInterrupt:
        return 0 if options.endless else 130
    except BrokenPipeError:
        # Whoever reads this has seen enough; without this Python complains again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(
            f"The package {error.name} is missing: run this through make, or install the project's"
            " development dependencies with `uv sync`.",
            file=sys.stderr,
        )
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m devtools", description="Tools for developing this project.")
    commands = parser.add_subparsers(required=True, metavar="command")

    def add(
        name: str, run: Callable[[argparse.Namespace], None], text: str, *, endless: bool = False
    ) -> _Parser:
        command: _Parser = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run, endless=endless)  # `endless`: Ctrl-C is how it ends
        return command

    add("dev", _dev, "run every service without Docker, show traces as they happen", endless=True)
    add("demo", _demo, "run every service without Docker, send three orders, show their traces")
    add("urls", _urls, "say where everything is when it runs in Docker")

    order = add("order", _order, "place an order, and show where its trace is")
    order.add_argument("--sku", default="keyboard")
    order.add_argument("--quantity", type=int, default=1)
    order.add_argument("--amount-cents", type=int, default=12_900, help="above 100000: declined")
    order.add_argument("--currency", default="EUR")
    order.add_argument("--country", default="FI", help="AQ: fails, there is no carrier")
    order.add_argument("--no-wait", action="store_true", help="do not wait for the trace")

    load = add("load", _load, "place mixed orders at a steady rate", endless=True)
    load.add_argument("--rate", type=_between(0.1, 200), default=5.0, help="orders per second")
    load.add_argument("--duration", type=_between(1, 86_400), default=60.0, help="seconds")

    sink = add("sink", _sink, "receive OTLP, check it, show traces", endless=True)
    sink.add_argument("--host", default="127.0.0.1")
    sink.add_argument("--grpc-port", type=_port, default=4317)
    sink.add_argument("--http-port", type=_port, default=4318)
    sink.add_argument("--query-port", type=_port, default=3200, help="answers as Tempo does")
    sink.add_argument("--quiet", action="store_true", help="show no traces")
    return parser


class _Parser(argparse.ArgumentParser):
    """Says what is wrong and how to learn more, without the whole usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _dev(options: argparse.Namespace) -> None:
    from rich.console import Console

    from . import dev

    dev.run(Console())


def _demo(options: argparse.Namespace) -> None:
    from rich.console import Console

    from . import demo

    demo.run(Console())


def _urls(options: argparse.Namespace) -> None:
    from rich.console import Console

    from . import urls

    urls.run(Console())


def _order(options: argparse.Namespace) -> None:
    from rich.console import Console

    from . import tempo
    from .orders import Order, place
    from .waterfall import Waterfall

    order = Order(
        options.sku, options.quantity, options.amount_cents, options.currency, options.country
    )
    placed = place(_orders_url(), order)
    print(f"order  {placed.order_id}")
    if not placed.trace_id:
        print("It has no trace: tracing is off.")
        return
    print(f"trace  {placed.trace_id}")
    grafana = f"http://127.0.0.1:{port('GRAFANA_PORT')}"
    print(f"       {tempo.explore_link(grafana, placed.trace_id)}")
    url = f"http://127.0.0.1:{port('TEMPO_PORT')}"
    if options.no_wait or not tempo.answers(url):
        return
    console = Console()
    with console.status("Waiting for its spans …"):
        spans = tempo.wait_for_family(url, placed.trace_id)
    console.print()
    console.print(Waterfall(placed.trace_id, spans))


def _load(options: argparse.Namespace) -> None:
    from rich.console import Console

    from . import load

    load.run(Console(), _orders_url(), options.rate, options.duration)


def _sink(options: argparse.Namespace) -> None:
    from . import serve

    try:
        serve.run(
            options.host,
            options.grpc_port,
            options.http_port,
            options.query_port,
            quiet=options.quiet,
        )
    except OSError as error:
        raise UserError(
            f"The sink {error}: another program has that port; choose others with --grpc-port,"
            " --http-port and --query-port."
        ) from error


def _orders_url() -> str:
    return f"http://127.0.0.1:{port('ORDERS_PORT')}"


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text} is no port from 0 (any free one) to 65535")
    return int(text)


def _between(least: float, most: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is no number from {least:g} to {most:g}")
        return value

    return number


if __name__ == "__main__":
    sys.exit(main())
