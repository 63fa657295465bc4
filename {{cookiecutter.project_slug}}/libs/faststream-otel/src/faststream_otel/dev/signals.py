"""Signals that end a program in good order."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def orderly_signals() -> Iterator[None]:
    """Let SIGTERM, and the loss of the terminal, end the program as Ctrl-C does.

    Only the first counts: make and uv pass on what a whole process group has got already, and a
    second interrupt would cut the orderly end short. Ctrl-C still does.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        for one in numbers:
            signal.signal(one, signal.SIG_IGN)
        raise KeyboardInterrupt

    numbers = [signal.SIGTERM]
    if hasattr(signal, "SIGHUP"):
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
