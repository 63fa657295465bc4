"""A service recovers by itself, or exits so that it is restarted; it never runs without working."""

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from faststream_otel.dev.receiver import OtlpReceiver

from ..ports import refusing_port
from .conftest import Process, Start
from .relay import relay

MODULE = f"{__package__}.patient"
SLEEPER = f"{__package__}.sleeper"
EX_SOFTWARE = 70


def status(process: Process, path: str, data: bytes | None = None) -> int:
    """The status that the service answers with; 0 if it does not answer."""
    request = urllib.request.Request(f"http://127.0.0.1:{process.port}{path}", data)
    try:
        with urllib.request.urlopen(request, timeout=3) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def wait_until(condition: Callable[[], object], process: Process, seconds: float = 30.0) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, process.output.read_text()
        time.sleep(0.1)


def test_http_answers_while_there_is_no_broker_and_works_when_there_is(
    start: Start, kafka: str
) -> None:
    with refusing_port() as port:
        process = start("-m", MODULE, BROKER_URL=f"127.0.0.1:{port}", OTEL_SDK_DISABLED="true")
        wait_until(lambda: status(process, "/health/live") == 204, process)
        wait_until(lambda: "next attempt" in process.output.read_text(), process)
        assert status(process, "/health/ready") == 503
        assert process.popen.poll() is None
        time.sleep(2)
        assert process.output.read_text().count("Unable connect") <= 1  # not at each attempt
    with relay(port, kafka):
        process.wait_ready()
        assert status(process, "/poke", b"") == 202
        assert process.stop() == 0


def test_it_stops_while_it_waits_for_the_broker(start: Start) -> None:
    with refusing_port() as port:
        process = start("-m", MODULE, BROKER_URL=f"127.0.0.1:{port}", OTEL_SDK_DISABLED="true")
        wait_until(lambda: "next attempt" in process.output.read_text(), process)
        assert process.stop() == 0, process.output.read_text()
    assert "Traceback" not in process.output.read_text()


def test_a_blocked_event_loop_ends_the_process_and_says_what_blocked_it(
    start: Start, sink: OtlpReceiver
) -> None:
    process = start(
        "-m", MODULE,
        WATCHDOG_TIMEOUT_SECONDS="2",
        OTEL_EXPORTER_OTLP_ENDPOINT=sink.grpc_endpoint,
        OTEL_BSP_SCHEDULE_DELAY="60000",
    )  # fmt: skip
    process.wait_ready()
    assert status(process, "/poke", b"") == 202
    threading.Thread(target=status, args=(process, "/block", b""), daemon=True).start()

    assert process.popen.wait(30) == EX_SOFTWARE
    output = process.output.read_text()
    assert "the event loop has been blocked" in output
    assert "time.sleep(60)" in output
    assert "send pokes" in {span.name for span in sink.spans}


def test_a_stalled_consumer_ends_the_process(start: Start) -> None:
    process = start("-m", MODULE, WATCHDOG_TIMEOUT_SECONDS="4", OTEL_SDK_DISABLED="true")
    process.wait_ready()
    assert status(process, "/stick", b"") == 204
    assert status(process, "/poke", b"") == 202

    wait_until(lambda: status(process, "/health/live") == 503, process)
    assert status(process, "/health/ready") in {503, 0}
    assert process.popen.wait(40) == EX_SOFTWARE
    assert "the consumer of pokes has made no progress for" in process.output.read_text()


def test_a_consumer_without_a_backlog_is_not_stalled(start: Start) -> None:
    process = start("-m", MODULE, WATCHDOG_TIMEOUT_SECONDS="2", OTEL_SDK_DISABLED="true")
    process.wait_ready()
    for _ in range(2):
        assert status(process, "/poke", b"") == 202
        time.sleep(3)  # longer than a stalled consumer has
    assert process.popen.poll() is None, process.output.read_text()
    assert status(process, "/health/live") == 204
    assert process.stop() == 0


def test_a_hanging_thread_does_not_keep_the_process_alive(start: Start, sink: OtlpReceiver) -> None:
    process = start(
        "-m", SLEEPER,
        DRAIN_TIMEOUT_SECONDS="0.2",
        FLUSH_TIMEOUT_SECONDS="1",
        HANDLER_TIMEOUT_SECONDS="0.5",
        RETRY_ATTEMPTS="1",
        WATCHDOG_TIMEOUT_SECONDS="2",
        OTEL_EXPORTER_OTLP_ENDPOINT=sink.grpc_endpoint,
    )  # fmt: skip
    process.wait_ready()
    assert status(process, "/naps", b"") == 204

    process.popen.wait(60)  # less than the thread takes
    output = process.output.read_text()
    assert "Handler nap has not ended" in output
    assert "Exiting so that the process is restarted" in output
    assert output.count("asleep") == 1
    assert " in nap\n" in output  # where the thread was
    (span,) = (one for one in sink.spans if one.name == "process naps")
    assert span.status == "ERROR"
    assert span.attributes["error.type"] == "asyncio.exceptions.CancelledError"


def test_a_message_that_is_redelivered_again_and_again_ends_no_process(start: Start) -> None:
    process = start(
        "-m", SLEEPER,
        REFUSES="yes",
        WATCHDOG_TIMEOUT_SECONDS="2",
        HANDLER_TIMEOUT_SECONDS="0.1",
        OTEL_SDK_DISABLED="true",
    )  # fmt: skip
    process.wait_ready()
    assert status(process, "/refusals", b"") == 204
    wait_until(lambda: "redelivery 3 in a row" in process.output.read_text(), process)
    assert process.output.read_text().count("refused") == 3
    assert status(process, "/health/live") == 204
    assert process.stop() == 0
