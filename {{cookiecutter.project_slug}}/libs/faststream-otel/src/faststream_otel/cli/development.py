"""The commands for development, which need the extras `cli` and `dev`; no image has them."""

import sys

COMMANDS = {
    "dev": "run every service without Docker, show traces as they complete, restart on change",
    "trace": "show a trace of what runs in Docker, and where it is in Grafana",
    "service": "add a service: its module, test and container",
    "urls": "list where everything is when it runs in Docker",
    "exec": "run a command where the services run: beside `dev`, or in Docker",
    "otlp-receiver": "receive OTLP, show its traces, answer questions as Tempo does",
}


def main(app: str | None, arguments: list[str]) -> int:
    """Run one of the commands, and return its exit code: 1 for an error, 2 for a bad argument.

    Args:
        app: The project's package. Default: the variable FASTSTREAM_OTEL_APP.
        arguments: The command's name, and its arguments.
    """
    try:
        from ..dev.commands import run

        return run(app, arguments)
    except ModuleNotFoundError as error:
        print(
            f"The package {error.name} is missing: install faststream-otel with the extra `dev`"
            " (in a baked project: uv sync).",
            file=sys.stderr,
        )
        return 1
