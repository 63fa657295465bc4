"""The watchdog distinguishes stalled consumers from an unreachable broker, with little traffic."""

import time
from contextlib import ExitStack
from functools import partial

from ..ports import free_port
from .conftest import Process, Start
from .relay import relay
from .test_faults import EX_SOFTWARE, MODULE, status, wait_until


def patient(start: Start, port: int, timeout: int, **variables: str) -> Process:
    """A service that is ready, and meets its broker at this port."""
    process = start(
        "-m", MODULE,
        BROKER_URL=f"127.0.0.1:{port}",
        WATCHDOG_TIMEOUT_SECONDS=str(timeout),
        OTEL_SDK_DISABLED="true",
        **variables,
    )  # fmt: skip
    process.wait_ready()
    return process


def answers(process: Process, path: str, code: int, data: bytes | None = None) -> bool:
    return status(process, path, data) == code


def test_it_opens_no_connection(start: Start, kafka: str) -> None:
    port = free_port()
    with relay(port, kafka) as way:
        process = patient(start, port, timeout=4)
        assert status(process, "/poke", b"") == 202
        time.sleep(1)
        own = way.accepted
        for _ in range(3):  # it looks each second
            time.sleep(1)
            assert status(process, "/health/ready") == 204
        assert way.accepted == own

        # Nor while it makes sure that the broker is there, and a consumer to blame.
        assert status(process, "/stick", b"") == 204
        assert status(process, "/poke", b"") == 202
        wait_until(lambda: status(process, "/health/live") == 503, process)
        assert way.accepted == own
        assert process.popen.wait(40) == EX_SOFTWARE


def test_an_unreachable_or_frozen_broker_ends_no_service(start: Start, kafka: str) -> None:
    ports = {fault: free_port() for fault in ("unreachable", "frozen")}
    with ExitStack() as unreachable, ExitStack() as frozen:
        unreachable.enter_context(relay(ports["unreachable"], kafka))
        way = frozen.enter_context(relay(ports["frozen"], kafka))
        processes = {
            fault: patient(start, port, timeout=8, NAME=fault) for fault, port in ports.items()
        }
        unreachable.close()
        way.moves.clear()
        for process in processes.values():
            wait_until(partial(answers, process, "/health/ready", 503), process)
        opened = way.accepted
        time.sleep(11)
        for process in processes.values():
            assert status(process, "/health/live") == 204, process.output.read_text()
        assert way.accepted - opened < 7  # it asks, but not each second

        unreachable.enter_context(relay(ports["unreachable"], kafka))
        way.moves.set()
        for process in processes.values():
            process.wait_ready()
            wait_until(partial(answers, process, "/poke", 202, b""), process)
            assert process.stop() == 0


def test_a_cluster_that_has_moved_ends_the_service(start: Start, kafka: str) -> None:
    """Clients ask BROKER_URL once: they never find the cluster again."""
    first, then = free_port(), free_port()
    with relay(first, kafka, advertised=then), ExitStack() as old:
        old.enter_context(relay(then, kafka))
        process = patient(start, first, timeout=4)
        old.close()
        assert process.popen.wait(60) == EX_SOFTWARE, process.output.read_text()
    assert "the consumer of pokes has made no progress for" in process.output.read_text()
