"""Ports of 127.0.0.1 for what the tests start."""

import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

# Client sockets take theirs from 32768 upwards: a port of ours belongs below.
RANGE = range(20000, 32768)


def free_port(consecutive: int = 1) -> int:
    """A port that nobody has, and nobody has as many after it either."""
    while True:
        port = random.choice(RANGE[:-consecutive])
        with ExitStack() as bound:
            try:
                for number in range(consecutive):
                    one = bound.enter_context(socket.socket())
                    one.bind(("127.0.0.1", port + number))
            except OSError:
                continue
            return port


@contextmanager
def refusing_port() -> Iterator[int]:
    """A port that refuses every connection meanwhile: it is bound, and nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        yield port
