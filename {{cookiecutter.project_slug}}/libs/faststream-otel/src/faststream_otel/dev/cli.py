"""What the command lines here have in common: their parsers, and how they end."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from .project import UserError
from .supervisor import orderly_signals

Run = Callable[[argparse.Namespace], None]


class Parser(argparse.ArgumentParser):
    """Says what is wrong and how to learn more, without the whole usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


class Commands:
    """The commands of a program, each a function that takes the options."""

    def __init__(self, program: str, text: str) -> None:
        self._parser = Parser(prog=program, description=text)
        self._commands = self._parser.add_subparsers(required=True, metavar="command")

    def add(self, name: str, run: Run, text: str, *, endless: bool = False) -> Parser:
        """Add a command, and return its parser. `endless`: Ctrl-C is how it ends."""
        command: Parser = self._commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run, endless=endless, parser=command)
        return command

    def run(self, arguments: list[str] | None = None) -> int:
        """Run the command that the arguments name; return the exit code."""
        options, unknown = self._parser.parse_known_args(arguments)
        if unknown:  # by the command's own parser, whose help lists what there is
            options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        run: Run = options.run
        try:
            with orderly_signals():
                run(options)
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
                f"The package {error.name} is missing: run this through make, or install the"
                " project's development dependencies with `uv sync`.",
                file=sys.stderr,
            )
            return 1
        return 0


def port_number(text: str) -> int:
    """For an argument that is a port."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text} is no port from 0 (any free one) to 65535")
    return int(text)


def number_between(least: float, most: float) -> Callable[[str], float]:
    """For an argument that is a number within these bounds."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is no number from {least:g} to {most:g}")
        return value

    return number
