"""No span is lost at shutdown, however the process was started and stopped."""

import json
import re
import signal
import time
import urllib.error
import urllib.request

import pytest
from faststream_otel.dev.receiver import OtlpReceiver

from ..ports import refusing_port
from .conftest import Process, Start
from .test_faults import EX_SOFTWARE, wait_until

MODULE = f"{__package__}.probe"
APP = f"{MODULE}:app"
PLAIN = f"{__package__}.patient:app"  # without routes of FastAPI's
HTTP_SPANS = "/ping", {"POST /ping", "send pings"}
PLAIN_SPANS = "/poke", {"poke", "send pokes"}
WAYS = {
    "own": (["-m", MODULE], *HTTP_SPANS),
    "uvicorn": (["-m", "uvicorn", APP, "--port", "{port}"], *HTTP_SPANS),
    "workers": (["-m", "uvicorn", APP, "--port", "{port}", "--workers", "2"], *HTTP_SPANS),
    "faststream": (["-m", "faststream", "run", PLAIN, "--port", "{port}"], *PLAIN_SPANS),
}
PINGS = 25
CLUMSY = f"{__package__}.clumsy"
ADOPTED = f"{__package__}.adopted"


def ping(process: Process, path: str = "/ping", timeout: float = 30.0) -> str:
    """Have a message sent; return its trace id.

    Of several workers the one that takes it may not have met the broker yet, and is asked again.
    """
    url = f"http://127.0.0.1:{process.port}{path}"
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
def test_every_span_leaves(sink: OtlpReceiver, start: Start, number: signal.Signals) -> None:
    processes = {
        way: start(
            *command,
            OTEL_EXPORTER_OTLP_ENDPOINT=sink.grpc_endpoint,
            OTEL_BSP_SCHEDULE_DELAY="60000",  # so that spans leave at the end, or never
        )
        for way, (command, _, _) in WAYS.items()
    }
    for process in processes.values():
        process.wait_ready()
    traces = {
        way: [ping(processes[way], path) for _ in range(PINGS)]
        for way, (_, path, _) in WAYS.items()
    }
    for process in processes.values():
        process.popen.send_signal(number)

    for way, (_, _, names) in WAYS.items():
        processes[way].popen.wait(30)
        output = processes[way].output.read_text()
        for trace_id in traces[way]:
            sent = [span.name for span in sink.trace(trace_id) if span.kind != "CONSUMER"]
            assert sorted(sent) == sorted(names), (way, output)
        assert "Traceback" not in output, way


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
        r"Not all telemetry was exported within 1\.0 s: (\d+) spans and (\d+) log records are lost",
        process.output.read_text(),
    )
    assert int(lost[0]) == 2 * PINGS  # POST, send
    assert int(lost[1]) > 0


def start_clumsy(start: Start, sink: OtlpReceiver, fault: str, **variables: str) -> Process:
    return start(
        "-m", CLUMSY,
        FAULT=fault,
        OTEL_SERVICE_NAME=fault,
        OTEL_EXPORTER_OTLP_ENDPOINT=sink.grpc_endpoint,
        OTEL_BSP_SCHEDULE_DELAY="60000",
        DRAIN_TIMEOUT_SECONDS="0.1",
        FLUSH_TIMEOUT_SECONDS="2",
        **variables,
    )  # fmt: skip


def steps_of(sink: OtlpReceiver, fault: str) -> list[str]:
    """What the service with this fault did, by the spans that it sent."""
    return [span.name for span in sink.spans if span.service == fault]


EVERY_STEP = ["begin", "started", "stopping", "stopped"]
FAULTS = {
    "failed": {
        "hook raises": "fail",
        "hook exits": "leave",
        "late hook raises": "fail",
        "broker raises": "fail",
    },
    "hangs and is abandoned": {
        "hook hangs": "hang",
        "plain hook hangs": "hang_in_a_thread",
        "broker hangs": "hang",
        "broker hangs on": "hang_on",
    },
}


@pytest.mark.parametrize("end", FAULTS)
def test_after_a_failed_step_the_others_still_run(
    sink: OtlpReceiver, start: Start, end: str
) -> None:
    processes = {fault: start_clumsy(start, sink, fault) for fault in FAULTS[end]}
    for process in processes.values():
        process.wait_ready()
    for process in processes.values():
        process.popen.send_signal(signal.SIGTERM)

    for fault, step in FAULTS[end].items():
        process = processes[fault]
        code = process.popen.wait(30)
        output = process.output.read_text()
        assert steps_of(sink, fault) == EVERY_STEP, output
        assert code != 0, output
        (said,) = re.findall("^.* ERROR .* Shutdown: (.*)$", output, re.MULTILINE)
        assert said == f"__main__.{step} {end}"


def test_a_failed_flush_does_not_keep_the_process_alive(sink: OtlpReceiver, start: Start) -> None:
    process = start_clumsy(start, sink, "flush raises")
    process.wait_ready()
    assert process.stop() == EX_SOFTWARE
    assert process.output.read_text().count("LookupError: lost the way out") == 1


def test_a_failed_start_ends_in_an_orderly_shutdown(sink: OtlpReceiver, start: Start) -> None:
    broker, hook = (start_clumsy(start, sink, f"start{of} raises") for of in ("", " hook"))
    assert broker.popen.wait(30) == EX_SOFTWARE
    output = broker.output.read_text()
    assert steps_of(sink, "start raises") == ["begin", "stopping", "stopped"], output

    assert hook.popen.wait(30) == 3  # uvicorn's
    assert steps_of(sink, "start hook raises") == ["begin"], hook.output.read_text()


def test_a_stopped_start_does_not_continue(sink: OtlpReceiver, start: Start) -> None:
    with refusing_port() as port:
        process = start_clumsy(start, sink, "", BROKER_URL=f"127.0.0.1:{port}")
        wait_until(lambda: "next attempt" in process.output.read_text(), process)
        assert process.stop() == 0, process.output.read_text()
    assert [span.name for span in sink.spans] == ["begin", "stopping", "stopped"]
    assert "started successfully" not in process.output.read_text()


@pytest.mark.parametrize(
    "way",
    [
        ["-m", "uvicorn", ":app", "--port", "{port}"],
        ["-m", "faststream", "run", ":app", "--port", "{port}"],
        ["-m", "faststream", "run", ":plain", "--for-the-lifespan", "{port}"],
    ],
    ids=["uvicorn", "faststream", "faststream without http"],
)
def test_telemetry_alone_leaves_though_the_broker_does_not_stop(
    sink: OtlpReceiver, start: Start, way: list[str]
) -> None:
    arguments = [f"{ADOPTED}{part}" if part.startswith(":") else part for part in way]
    process = start(
        *arguments,
        OTEL_EXPORTER_OTLP_ENDPOINT=sink.grpc_endpoint,
        OTEL_BSP_SCHEDULE_DELAY="60000",
    )
    wait_until(lambda: "begun" in process.output.read_text(), process)
    process.stop()
    assert [span.name for span in sink.spans] == ["begin"], process.output.read_text()
