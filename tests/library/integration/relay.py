"""A TCP relay in front of a broker, to make the broker unreachable or frozen for clients."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Relay:
    """What happens at the port of a relay.

    Attributes:
        accepted: How many connections clients have opened so far.
        moves: Cleared, nothing is handed on, as by a broker that stands still (SIGSTOP).
    """

    def __init__(self) -> None:
        self.accepted = 0
        self.moves = threading.Event()
        self.moves.set()


@contextmanager
def relay(port: int, broker: str, advertised: int | None = None) -> Iterator[Relay]:
    """Relay connections from `port` of 127.0.0.1 to the broker, and close them at the end.

    Args:
        advertised: The port that clients then connect to. Default: this one.
    """
    host, _, number = broker.rpartition(":")
    # A Kafka broker tells its clients where it is (Metadata, FindCoordinator): a string, and an
    # int32. The advertised port makes them stay on this side.
    real, fake = (
        host.encode() + struct.pack(">i", each) for each in (int(number), advertised or port)
    )
    connections: list[socket.socket] = []
    state = Relay()

    def copy(source: socket.socket, sink: socket.socket, old: bytes, new: bytes) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                state.moves.wait()
                sink.sendall(data.replace(old, new))
            sink.shutdown(socket.SHUT_WR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = server.accept()
                state.accepted += 1
                upstream = socket.create_connection((host, int(number)))
                connections.extend((client, upstream))
                for ends in ((client, upstream, b"", b""), (upstream, client, real, fake)):
                    threading.Thread(target=copy, args=ends, daemon=True).start()

    with socket.create_server(("127.0.0.1", port)) as server:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield state
        finally:
            for connection in (server, *connections):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            for connection in connections:
                connection.close()
            state.moves.set()
