"""What a service refuses before a handler sees it, as a client on a socket experiences it."""

import http.client
import json
import socket
import time
from contextlib import ExitStack

import pytest

from .conftest import Process, Start

MODULE = f"{__package__}.probe"
JSON = {"Content-Type": "application/json"}
CONNECTIONS = 5
# The same service with few connections: a thousand would want more files than a process may open.
WITH_FEW_CONNECTIONS = f"""
from {{ cookiecutter.package_name }} import service
service.MAX_CONNECTIONS = {CONNECTIONS}
from {MODULE} import service
service.run()
"""


@pytest.fixture(scope="module")
def limits() -> dict[str, str]:
    return {"MAX_BODY_BYTES": "100000", "BODY_TIMEOUT_SECONDS": "1"}


@pytest.fixture
def service(start: Start, limits: dict[str, str]) -> Process:
    process = start("-m", MODULE, OTEL_SDK_DISABLED="true", **limits)
    process.wait_ready()
    return process


def ask(service: Process, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)
    try:
        connection.request("POST", "/weigh", body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def read_to_the_end(connection: socket.socket) -> bytes:
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received


def sent_until_it_is_cut_off(connection: socket.socket, chunk: bytes, most: int) -> int:
    """Return how many times the chunk was sent."""
    for number in range(most):
        try:
            connection.sendall(chunk)
        except OSError:
            return number
        time.sleep(0.001)
    return most


def test_limits(service: Process) -> None:
    good = json.dumps({"weight": 5}).encode()
    assert ask(service, good, JSON)[0] == 200
    assert ask(service, good, {"Content-Type": "text/plain"})[0] == 415
    assert ask(service, b"{", JSON)[0] == 422
    # Whole megabytes that the client sends before it looks for an answer.
    assert ask(service, b" " * 700_000, JSON)[0] == 413

    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as headers:
        headers.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Padding: ")
        assert sent_until_it_is_cut_off(headers, b"a" * 4096, most=100) < 100

    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as slow:
        slow.sendall(
            b"POST /weigh HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 20\r\n\r\n{"
        )
        started = time.monotonic()
        answer = read_to_the_end(slow)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert 0.9 < time.monotonic() - started < 3

    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as endless:
        endless.sendall(
            b"POST /weigh HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        assert sent_until_it_is_cut_off(endless, chunk, most=500) < 500

    assert ask(service, good, JSON)[0] == 200
    output = service.output.read_text()
    assert "Traceback" not in output
    assert " ERROR " not in output


def test_connections_are_bounded_idle_ones_too(start: Start) -> None:
    service = start("-c", WITH_FEW_CONNECTIONS, OTEL_SDK_DISABLED="true")
    service.wait_ready()
    good = json.dumps({"weight": 5}).encode()
    with ExitStack() as idle:
        for number in range(CONNECTIONS - 1):
            assert ask(service, good, JSON)[0] == 200, number
            address = ("127.0.0.1", service.port)
            idle.enter_context(socket.create_connection(address, timeout=10))
        assert ask(service, good, JSON)[0] == 503
    deadline = time.monotonic() + 10
    while ask(service, good, JSON)[0] != 200:  # it notices a moment later that they are gone
        assert time.monotonic() < deadline
        time.sleep(0.05)
