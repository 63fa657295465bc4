"""What the commands that connect to the broker share.

Exit codes: 0 success, even if there was nothing to do; 1 failure, even a partial one; 2 a bad
argument or setting; 130 interrupted. Results go to stdout, everything else to stderr.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..messages.broker import Broker, Unreachable
from ..messages.dead_letters.search import NotFound
from ..settings import Settings
from .app import App

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001


class CannotContinue(Exception):
    """The command cannot continue. The text says why, in one sentence."""


@dataclass(frozen=True)
class Context:
    """The input of a command."""

    options: argparse.Namespace
    app: App
    settings: Settings
    broker: Broker


Command: TypeAlias = Callable[[Context], Coroutine[Any, Any, int]]


def add_command(
    commands: Subparsers, name: str, command: Command, text: str, *, lists: bool = False
) -> argparse.ArgumentParser:
    """Add a command that connects to the broker, and return its parser.

    Args:
        lists: Whether the command only prints. If so, a closed pipe, as with `| head`, is a
            success.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}."
    )
    parser.set_defaults(run=lambda options: _run(command, options), error=parser.error, lists=lists)
    return parser


def quiet(broker: Broker) -> None:
    """Silence the client's loggers: the commands report its errors themselves."""
    for name in broker.noisy_loggers:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _run(command: Command, options: argparse.Namespace) -> int:
    app = App(options.app)
    settings = app.settings()
    broker = settings.broker()
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.WARNING)
    logging.basicConfig(handlers=[handler], format="%(message)s")
    logging.getLogger(__name__.partition(".")[0]).setLevel(logging.INFO)
    quiet(broker)
    try:
        return asyncio.run(_ended_by_sigterm(command(Context(options, app, settings, broker))))
    except (CannotContinue, NotFound) as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader is gone, as with `| head`. Without this, Python reports it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0 if options.lists else 1
    except Unreachable as error:
        print(f"The broker at {broker.url} (BROKER_URL): {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130


async def _ended_by_sigterm(command: Coroutine[Any, Any, int]) -> int:
    task = asyncio.ensure_future(command)
    with suppress(NotImplementedError):  # Windows
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task
