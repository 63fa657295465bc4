"""The commands for development. They need the extra `cli`, and `dev` its own: no image has them."""

import sys

COMMANDS = {
    "dev": "run every service without Docker, show each complete trace, restart on changes",
    "trace": "show a trace from the stack in Docker, and the link to it in Grafana",
    "service": "add a service: its module, test and container",
    "urls": "list the addresses of the stack in Docker",
    "exec": "run a command against the running services: those of `dev` or in Docker",
    "otlp-receiver": "receive OTLP, show its traces, serve them over Tempo's API",
}


def main(app: str | None, arguments: list[str]) -> int:
    """Run one of the commands, and return its exit code: 1 for an error, 2 for a bad argument.

    Args:
        app: The project's package. Default: the variable FASTSTREAM_OTEL_APP.
        arguments: The command's name, then its arguments.
    """
    try:
        from ..dev.commands import run

        return run(app, arguments)
    except ModuleNotFoundError as error:
        extra = "dev" if arguments[:1] == ["dev"] else "cli"  # which `dev` includes
        print(
            f"The package {error.name} is missing: install faststream-otel with the extra `{extra}`"
            " (in a baked project: uv sync).",
            file=sys.stderr,
        )
        return 1
