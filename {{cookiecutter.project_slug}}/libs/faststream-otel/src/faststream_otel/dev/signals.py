"""Signals that end a program in an orderly way."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class _Interrupt:
    """Whether it is deferred now, and whether one arrived meanwhile."""

    put_off = False
    pending = False


@contextmanager
def orderly_signals() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM and SIGHUP, as Ctrl-C does.

    Only the first of these signals counts. The whole process group gets it, and then make and uv
    forward it again; the second one would interrupt the orderly end. Ctrl-C still does.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        if number != signal.SIGINT:
            for one in once:
                signal.signal(one, signal.SIG_IGN)
        if _Interrupt.put_off:
            _Interrupt.pending = True
        else:
            raise KeyboardInterrupt

    once = [signal.SIGTERM]
    if hasattr(signal, "SIGHUP"):
        once.append(signal.SIGHUP)
    numbers = [*once]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        numbers.append(signal.SIGINT)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Defer the KeyboardInterrupt of a signal to the end of this block.

    It could come between acquiring a lock and the block that releases it; the next to acquire the
    lock, such as `Popen.wait`, would wait forever.
    """
    _Interrupt.put_off = True
    try:
        yield
    finally:
        _Interrupt.put_off = False
        if _Interrupt.pending:
            _Interrupt.pending = False
            raise KeyboardInterrupt
