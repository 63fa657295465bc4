"""A service waits for an unreachable broker, and then exits with an error."""

import time

import pytest

from ..ports import refusing_port
from .conftest import Process, Start

PLAIN = """
from faststream_otel import Service
from faststream_otel.kafka import KafkaSettings
Service("plain", KafkaSettings()).run()
"""
EX_SOFTWARE = 70
WAYS = {"plain": ["-c", PLAIN], "http": ["-m", f"{__package__}.probe"]}


def start_without_broker(start: Start, way: str, **variables: str) -> Process:
    return start(*WAYS[way], OTEL_SDK_DISABLED="true", **variables)


@pytest.mark.parametrize("way", WAYS)
def test_it_ends_with_an_error_when_it_has_waited_long_enough(start: Start, way: str) -> None:
    with refusing_port() as port:
        process = start_without_broker(
            start, way, BROKER_URL=f"127.0.0.1:{port}", BROKER_START_TIMEOUT_SECONDS="1.5"
        )
        assert process.popen.wait(30) == EX_SOFTWARE, process.output.read_text()
    output = process.output.read_text()
    (said,) = [line for line in output.splitlines() if " CRITICAL " in line]
    assert f"No broker at 127.0.0.1:{port} (BROKER_URL) for 1.5 s" in said
    assert "next attempt" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("way", WAYS)
def test_a_signal_interrupts_the_waiting(start: Start, way: str) -> None:
    with refusing_port() as port:
        process = start_without_broker(
            start, way, BROKER_URL=f"127.0.0.1:{port}", BROKER_START_TIMEOUT_SECONDS="0"
        )
        deadline = time.monotonic() + 30
        while "next attempt" not in process.output.read_text():
            assert time.monotonic() < deadline, process.output.read_text()
            time.sleep(0.1)
        assert process.stop() == 0, process.output.read_text()
    assert "Traceback" not in process.output.read_text()
