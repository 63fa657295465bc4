"""Command-line options of the commands for development."""

import sys
from typing import Annotated

import typer
from rich.console import Console

from ..cli.development import COMMANDS
from .project import Project, UserError
from .signals import orderly_signals

cli = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)
Port = Annotated[int, typer.Option(min=0, max=65535)]


def run(app: str | None, arguments: list[str]) -> int:
    """Run the command that the arguments name, and return the exit code."""
    try:
        with orderly_signals():
            cli(arguments, prog_name="faststream-otel", obj=app)
    except SystemExit as ended:
        return int(ended.code or 0)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


@cli.callback(help="Commands for developing a project.")
def _commands() -> None: ...


@cli.command("dev", help=COMMANDS["dev"])
def _dev(context: typer.Context) -> None:
    from . import run as local_run

    try:
        local_run.run(Console(), Project.here(context.obj))
    except KeyboardInterrupt:  # the normal end
        return


@cli.command("trace", help=COMMANDS["trace"])
def _trace(
    context: typer.Context,
    trace_id: Annotated[str, typer.Argument(help="32 hex digits, from a response or a log line")],
) -> None:
    from .trace import show_trace

    show_trace(Console(), Project.here(context.obj), trace_id)


@cli.command("service", help=COMMANDS["service"])
def _service(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="lower-case words separated by -, such as invoicing")],
    consumes: Annotated[
        str,
        typer.Option(
            help="channel to consume, new or existing (default: the last one in channels.py)"
        ),
    ] = "",
    publishes: Annotated[
        str, typer.Option(help="new channel to publish to, such as invoices.issued")
    ] = "",
    batch: Annotated[bool, typer.Option("--batch", help="handle messages in batches")] = False,
) -> None:
    from .new_service import add_service

    print(add_service(Project.here(context.obj), name, consumes, publishes, batch))


@cli.command("urls", help=COMMANDS["urls"])
def _urls(context: typer.Context) -> None:
    from .urls import show_urls

    show_urls(Console(), Project.here(context.obj))


@cli.command(
    "exec",
    help=COMMANDS["exec"],
    add_help_option=False,  # --help is for the command to run
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def _exec(context: typer.Context) -> None:
    from .exec import execute

    execute(Project.here(context.obj), context.args)


@cli.command("otlp-receiver", help=COMMANDS["otlp-receiver"])
def _otlp_receiver(
    host: str = "127.0.0.1",
    grpc_port: Port = 4317,
    http_port: Port = 4318,
    query_port: Annotated[int, typer.Option(min=0, max=65535, help="serves Tempo's API")] = 3200,
    quiet: Annotated[bool, typer.Option("--quiet", help="show no traces")] = False,
) -> None:
    from .run import receive

    try:
        receive(None if quiet else Console(), host, grpc_port, http_port, query_port)
    except KeyboardInterrupt:  # the normal end
        return
    except OSError as error:
        raise UserError(
            f"{str(error).capitalize()}: another program uses that port. Choose others with"
            " --grpc-port, --http-port and --query-port."
        ) from error
