"""Under load a service stops, or the broker becomes unreachable: no accepted message is lost."""

import re
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from ..ports import free_port
from .conftest import Process, Start
from .relay import relay

MODULE = f"{__package__}.counter"
PER_SECOND = 50


class Load:
    """Numbers that are sent at a steady rate, and what became of each."""

    def __init__(self, process: Process) -> None:
        self.process = process
        """That takes them; may change."""
        self.answers: dict[int, int] = {}
        """The status for each; 0 for no answer."""
        self.retry_after: set[str | None] = set()
        """Of those that were answered with a 503."""

    @property
    def accepted(self) -> set[int]:
        return {number for number, status in self.answers.items() if status == 204}

    @contextmanager
    def running(self) -> Iterator[None]:
        done = threading.Event()

        def run() -> None:
            while not done.wait(1 / PER_SECOND):
                self._send(len(self.answers))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _send(self, number: int) -> None:
        url = f"http://127.0.0.1:{self.process.port}/numbers"
        request = urllib.request.Request(
            url, str(number).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                self.answers[number] = answer.status
        except urllib.error.HTTPError as error:
            self.answers[number] = error.code
            self.retry_after.add(error.headers["Retry-After"])
        except OSError:
            self.answers[number] = 0


def handled(*processes: Process) -> Counter[int]:
    """How many times each number was."""
    return Counter(
        int(number)
        for process in processes
        for number in re.findall(r"^handled (\d+)$", process.output.read_text(), re.MULTILINE)
    )


def wait_until(condition: Callable[[], object], *processes: Process, seconds: float = 30) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, [process.output.read_text() for process in processes]
        time.sleep(0.1)


def test_a_stopped_replica_leaves_its_messages_to_another(start: Start) -> None:
    first = start("-m", MODULE, OTEL_SDK_DISABLED="true")
    first.wait_ready()
    load = Load(first)
    with load.running():
        wait_until(lambda: len(load.accepted) > PER_SECOND, first)
        assert first.stop() == 0
        assert load.accepted - handled(first).keys()  # it was behind
        load.process = second = start("-m", MODULE, OTEL_SDK_DISABLED="true")
        before = len(load.accepted)
        wait_until(lambda: len(load.accepted) > before + PER_SECOND, first, second)
    wait_until(lambda: load.accepted <= handled(first, second).keys(), first, second)

    times = handled(first, second)
    assert times.total() - len(times) <= 4  # in hand, one of each partition


def test_a_broker_that_goes_and_comes_back(start: Start, kafka: str) -> None:
    port = free_port()
    process = start("-m", MODULE, BROKER_URL=f"127.0.0.1:{port}", OTEL_SDK_DISABLED="true")
    load = Load(process)
    with ExitStack() as broker:
        broker.enter_context(relay(port, kafka))
        process.wait_ready()
        with load.running():
            wait_until(lambda: len(load.accepted) > PER_SECOND, process)
            broker.close()
            wait_until(lambda: list(load.answers.values()).count(503) > 2, process)
            before = len(load.accepted)
            broker.enter_context(relay(port, kafka))
            wait_until(lambda: len(load.accepted) > before + PER_SECOND, process)
        wait_until(lambda: load.accepted <= handled(process).keys(), process)
        assert process.stop() == 0

    assert set(load.answers.values()) == {204, 503}
    assert load.retry_after == {"1"}
