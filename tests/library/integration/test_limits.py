"""Limits of requests and connections, as a client on a socket sees them."""

import http.client
import json
import socket
import time
from contextlib import ExitStack, closing, suppress

import pytest

from .conftest import Process, Start

MODULE = f"{__package__}.probe"
JSON = {"Content-Type": "application/json"}
CONNECTIONS = 20
IDLE_SECONDS = 2.0
# The same service with other limits, of which no user needs to know.
WITH_OTHER_LIMITS = f"""
from faststream_otel import service
service.MAX_CONNECTIONS = {CONNECTIONS}
service.IDLE_SECONDS = {IDLE_SECONDS}
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
    # Compressed, and so much that it is not all read at once; the client sends all of it first.
    for size in (100, 90_000, 700_000):
        assert ask(service, b"x" * size, JSON | {"Content-Encoding": "gzip"})[0] == 415
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


def get(service: Process, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def closed(connection: socket.socket) -> bool:
    """Whether the server has closed it; drops what it sent before."""
    connection.setblocking(False)
    try:
        while connection.recv(65536):
            pass
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    return True


def test_far_more_connections_than_it_keeps_do_no_harm(start: Start) -> None:
    service = start("-m", MODULE, OTEL_SDK_DISABLED="true")
    service.wait_ready()
    with ExitStack() as stack:
        opened = [
            stack.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=10))
            for _ in range(1200)
        ]
        assert get(service, "/health/live") == 204
        assert get(service, "/health/ready") == 204
        assert get(service, "/metrics") == 200
        assert ask(service, json.dumps({"weight": 5}).encode(), JSON)[0] == 200
        # The ones that waited longest had to go.
        assert [closed(one) for one in opened[:100] + opened[-100:]] == [True] * 100 + [False] * 100


HEAD = b"POST /weigh HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
IDLE = {
    "sends nothing": b"",
    "sends no whole head": HEAD,
    "has had its answer": b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "has its answer before its body is sent": (
        b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
    ),
}


def test_idle_and_slow_connections_are_closed(start: Start) -> None:
    service = start("-c", WITH_OTHER_LIMITS, OTEL_SDK_DISABLED="true")
    service.wait_ready()
    with ExitStack() as stack:
        waiting = {}
        for name, sent in IDLE.items():
            address = ("127.0.0.1", service.port)
            waiting[name] = stack.enter_context(socket.create_connection(address, timeout=10))
            waiting[name].sendall(sent)
        assert not [name for name, connection in waiting.items() if closed(connection)]
        deadline = time.monotonic() + 20
        while waiting := {name: one for name, one in waiting.items() if not closed(one)}:
            assert time.monotonic() < deadline, waiting
            time.sleep(0.2)
            for name, connection in waiting.items():
                with suppress(OSError):  # a little now and then makes no difference
                    connection.send(b"a" if IDLE[name] else b"")


def test_a_client_that_reads_no_answer_is_cut_off(start: Start) -> None:
    service = start("-c", WITH_OTHER_LIMITS, OTEL_SDK_DISABLED="true")
    service.wait_ready()
    requests = 5000
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        connection.setblocking(False)
        with suppress(BlockingIOError):
            connection.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * requests)
        time.sleep(3 * IDLE_SECONDS)
        connection.settimeout(10)
        answers = 0
        with suppress(ConnectionResetError):
            answers = read_to_the_end(connection).count(b"HTTP/1.1 200 OK")
    assert answers < requests


UNCLEAR = [
    b"HTTP/1.1\r\nContent-Length: 13\r\nTransfer-Encoding: chunked\r\n",
    b"HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n",
    b"HTTP/1.1\r\nContent-Length: 13\r\nContent-Length: 0\r\n",
    b"HTTP/1.1\r\nContent-Length: 13, 0\r\n",
    b"HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n",
    b"HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    b"HTTP/1.1\r\nTransfer-Encoding : chunked\r\n",
    b"HTTP/1.0\r\nTransfer-Encoding: chunked\r\n",
]


def test_a_request_whose_end_is_not_clear_ends_its_connection(service: Process) -> None:
    smuggled = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for head in UNCLEAR:
        for path in (b"/weigh", b"/ping", b"/health/live", b"/nowhere"):
            with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
                connection.sendall(
                    b"POST %s %sHost: localhost\r\nContent-Type: application/json\r\n\r\n"
                    b'd\r\n{"weight": 5}\r\n0\r\n\r\n%s' % (path, head, smuggled)
                )
                answer = read_to_the_end(connection)
            assert answer.startswith(b"HTTP/1.1 400 "), (path, head)
            assert answer.count(b"HTTP/1.1 ") == 1, (path, head)


def test_a_connection_that_is_used_is_kept(start: Start) -> None:
    service = start("-c", WITH_OTHER_LIMITS, OTEL_SDK_DISABLED="true", BODY_TIMEOUT_SECONDS="30")
    service.wait_ready()
    used = http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)
    with (
        closing(used),
        socket.create_connection(("127.0.0.1", service.port), timeout=10) as busy,
        ExitStack() as idle,
    ):
        busy.sendall(HEAD + b"Content-Length: 13\r\n\r\n")
        until = time.monotonic() + 3 * IDLE_SECONDS
        while time.monotonic() < until:
            used.request("GET", "/health/live")
            assert used.getresponse().read() == b""
            address = ("127.0.0.1", service.port)
            idle.enter_context(socket.create_connection(address, timeout=10))
            time.sleep(0.1)
        busy.sendall(b'{"weight": 5}')
        assert busy.recv(65536).startswith(b"HTTP/1.1 200 ")
