"""`python -m devtools <command>`, from the project's folder; the Makefile names the commands."""

import argparse
import sys

from .cli import Commands, port_number
from .project import UserError


def main(arguments: list[str] | None = None) -> int:
    commands = Commands("python -m devtools", "Tools for developing this project.")
    add = commands.add

    add("dev", _dev, "run every service without Docker, show traces as they happen", endless=True)
    add("urls", _urls, "say where everything is when it runs in Docker")

    trace = add("trace", _trace, "show a trace of what runs in Docker, and where it is in Grafana")
    trace.add_argument(
        "id", nargs="?", default="", help="32 hex digits, as a service answers or logs them"
    )

    service = add("service", _service, "add a service: its handler, container, test and settings")
    service.add_argument("name", help="lower-case, with - between words: invoicing")
    service.add_argument(
        "--consumes",
        default="",
        metavar="CHANNEL",
        help="what it listens to, there already or new; default: the last one in channels.py",
    )
    service.add_argument(
        "--publishes",
        default="",
        metavar="CHANNEL",
        help="a new channel, or one that nobody publishes to yet: invoices.issued",
    )
    service.add_argument("--batch", action="store_true", help="handle many messages at a time")
    service.add_argument(
        "--setting",
        action="append",
        default=[],
        metavar="NAME=DEFAULT",
        help="one of its own, from the environment: due_days=30 (as often as need be)",
    )

    sink = add("sink", _sink, "receive OTLP, check it, show traces", endless=True)
    sink.add_argument("--host", default="127.0.0.1")
    sink.add_argument("--grpc-port", type=port_number, default=4317)
    sink.add_argument("--http-port", type=port_number, default=4318)
    sink.add_argument("--query-port", type=port_number, default=3200, help="answers as Tempo does")
    sink.add_argument("--quiet", action="store_true", help="show no traces")
    return commands.run(arguments)


def _dev(options: argparse.Namespace) -> None:
    from rich.console import Console

    from . import dev

    dev.run(Console())


def _urls(options: argparse.Namespace) -> None:
    from rich.console import Console

    from . import urls

    urls.run(Console())


def _trace(options: argparse.Namespace) -> None:
    from rich.console import Console

    from . import trace

    trace.run(Console(), options.id)


def _service(options: argparse.Namespace) -> None:
    from rich.console import Console

    from .new_service.command import run
    from .new_service.plan import Options

    run(
        Console(),
        Options(options.name, options.consumes, options.publishes, options.batch, options.setting),
    )


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


if __name__ == "__main__":
    sys.exit(main())
