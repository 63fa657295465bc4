"""Free ports on 127.0.0.1 for processes of tests."""

import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

# Below 32768, where the system does not choose ports for client sockets.
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
    """A port that refuses every connection: it is bound, but nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        yield port
