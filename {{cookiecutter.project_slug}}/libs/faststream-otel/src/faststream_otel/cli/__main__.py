"""The command `faststream-otel`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ..telemetry import prepare_environment
from .app import VARIABLE
from .errors import exit_code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit code: 2 for a bad argument or setting.

    Args:
        arguments: Default: those of the command line.
    """
    return exit_code(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    prepare_environment()
    # After the line above: these import OpenTelemetry, which reads the environment.
    from . import channels, dead_letters, development, lag

    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)  # like `python -m`, for a project that is not installed
    parser = argparse.ArgumentParser(
        prog="faststream-otel", description="Work with a project of FastStream services."
    )
    parser.add_argument(
        "--app",
        metavar="PACKAGE",
        default=os.environ.get(VARIABLE, ""),
        help=f"the project's package, such as order_flow (default: {VARIABLE})",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    channels.add_to(commands)
    lag.add_to(commands)
    dead_letters.add_to(commands)
    for name, text in development.COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False)
    options, rest = parser.parse_known_args(arguments)
    if options.command in development.COMMANDS:
        return development.main(options.app or None, [options.command, *rest])
    if rest:
        options.error(f"unrecognized arguments: {' '.join(rest)}")
    code: int = options.run(options)
    return code


if __name__ == "__main__":
    sys.exit(main())
