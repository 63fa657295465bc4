"""No span is lost at the end of a process, whichever way it was started and stopped."""

import json
import re
import signal
import time
import urllib.error
import urllib.request

import pytest

from ..ports import refusing_port
from .conftest import Process, Start
from devtools.sink import OtlpSink

MODULE = f"{__package__}.probe"
APP = f"{MODULE}:app"
WAYS = {
    "own": ["-m", MODULE],
    "uvicorn": ["-m", "uvicorn", APP, "--port", "{port}"],
    "workers": ["-m", "uvicorn", APP, "--port", "{port}", "--workers", "2"],
    "faststream": ["-m", "faststream", "run", APP, "--port", "{port}"],
}
PINGS = 25


def ping(process: Process, timeout: float = 30.0) -> str:
    """Have a message sent; return its trace id.

    Of several workers the one that takes it may not have met the broker yet, and is asked again.
    """
    url = f"http://127.0.0.1:{process.port}/ping"
    deadline = time.monotonic() + timeout
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, b""), timeout=10) as answer:
                trace_id: str = json.load(answer)["trace_id"]
            return trace_id
        except urllib.error.HTTPError as error:
            if error.code != 503 or time.monotonic() > deadline:
                raise AssertionError(process.output.read_text()) from error
            time.sleep(0.1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("way", WAYS)
def test_every_span_leaves(sink: OtlpSink, start: Start, way: str, number: signal.Signals) -> None:
    process = start(
        *WAYS[way],
        OTEL_EXPORTER_OTLP_ENDPOINT=sink.grpc_endpoint,
        OTEL_BSP_SCHEDULE_DELAY="60000",  # so that spans leave at the end, or never
    )
    process.wait_ready()
    traces = [ping(process) for _ in range(PINGS)]
    process.stop(number)

    for trace_id in traces:
        assert sorted(span.name for span in sink.trace(trace_id)) == [
            "POST /ping",
            "send pings",
        ], process.output.read_text()
    assert "Traceback" not in process.output.read_text()


def test_a_service_lives_and_ends_without_a_collector(start: Start) -> None:
    with refusing_port() as port:
        process = start(
            "-m", MODULE,
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
            OTEL_EXPORTER_OTLP_TIMEOUT="1000",
            OTEL_BSP_SCHEDULE_DELAY="200",
            OTEL_BLRP_SCHEDULE_DELAY="200",
            OTEL_METRIC_EXPORT_INTERVAL="500",
            FLUSH_TIMEOUT_SECONDS="3",
        )  # fmt: skip
        process.wait_ready()
        for _ in range(PINGS):
            ping(process)
        assert process.stop() == 0

    output = process.output.read_text()
    assert output.count("cannot be exported") == 1
    assert "Traceback" not in output


def test_what_is_lost_at_the_end_is_counted(start: Start) -> None:
    with refusing_port() as port:
        process = start(
            "-m", MODULE,
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
            OTEL_BSP_MAX_EXPORT_BATCH_SIZE="20",  # so that one batch is in hand, others wait
            OTEL_BSP_SCHEDULE_DELAY="200",
            FLUSH_TIMEOUT_SECONDS="1",
        )  # fmt: skip
        process.wait_ready()
        for _ in range(PINGS):
            ping(process)
        assert process.stop() == 0

    (lost,) = re.findall(
        r"not all exported within 1\.0 s: (\d+) spans and (\d+) log records are lost",
        process.output.read_text(),
    )
    assert int(lost[0]) == 2 * PINGS  # POST, send
    assert int(lost[1]) > 0
