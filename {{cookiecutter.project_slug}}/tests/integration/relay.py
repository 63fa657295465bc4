"""A broker that can be taken away: clients reach it through here, or not at all."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def relay(port: int, broker: str) -> Iterator[None]:
    """Hand connections to `port` of 127.0.0.1 on to the broker, and cut them off in the end."""
    host, _, number = broker.rpartition(":")
    # A Kafka broker tells its clients where it is (Metadata, FindCoordinator): a string, and an
    # int32. Told another port, they stay on this side.
    real, told = (host.encode() + struct.pack(">i", each) for each in (int(number), port))
    connections: list[socket.socket] = []

    def copy(source: socket.socket, sink: socket.socket, old: bytes, new: bytes) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data.replace(old, new))
            sink.shutdown(socket.SHUT_WR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = server.accept()
                upstream = socket.create_connection((host, int(number)))
                connections.extend((client, upstream))
                for ends in ((client, upstream, b"", b""), (upstream, client, real, told)):
                    threading.Thread(target=copy, args=ends, daemon=True).start()

    with socket.create_server(("127.0.0.1", port)) as server:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield
        finally:
            for connection in (server, *connections):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            for connection in connections:
                connection.close()
