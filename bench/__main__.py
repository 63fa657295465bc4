"""Measure CPU time per message and hop, with variants interleaved in one run; report ratios.

Needs a real broker, such as that of `docker compose up` in a baked project. It can start NATS, and
a RabbitMQ that is installed. Measures the library of this repository. An OTLP receiver runs beside
the variants and is not measured.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from .pipelines import PIPELINES

ROOT = Path(__file__).parents[1]

# The recipe has only traces, so ours is compared with only traces; "ours+all" has all signals.
TRACES_ONLY = {
    "OTEL_LOGS_EXPORTER": "none",
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED": "false",
}

# (variant, whether event loop, log level and gc are those of the baked project)
RUNS = [
    ("bare", False),
    ("recipe", False),
    ("recipe+prometheus", False),
    ("ours", False),
    ("bare", True),
    ("ours", True),
    ("ours+all", True),
]
# The limits were set for Kafka.
RATIOS = [
    ("ours to bare FastStream, both as FastStream starts", ("ours", False), ("bare", False), 1.9),
    ("ours to bare FastStream, both as baked", ("ours", True), ("bare", True), None),
    (
        "ours as baked to the docs' recipe with Prometheus",
        ("ours", True),
        ("recipe+prometheus", False),
        0.7,
    ),
]

Run = tuple[str, bool]


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of all variants (default 5)")
    parser.add_argument("--messages", type=int, default=3000, help="per run (default 3000)")
    parser.add_argument(
        "--broker", choices=PIPELINES, default="kafka", help="the kind of broker (default kafka)"
    )
    parser.add_argument(
        "--broker-url",
        default=os.environ.get("BROKER_URL", ""),
        metavar="HOST:PORT",
        help="a real broker of this kind (default BROKER_URL; without it, starts NATS or an"
        " installed RabbitMQ). RabbitMQ and NATS also take BROKER_USERNAME and BROKER_PASSWORD",
    )
    arguments = parser.parse_args()

    costs: dict[Run, list[float]] = {run: [] for run in RUNS}
    with server(arguments.broker, arguments.broker_url) as url, Receiver() as endpoint:
        for number in range(arguments.rounds):
            for run in RUNS if number % 2 == 0 else reversed(RUNS):
                costs[run].append(measure(run, endpoint, arguments.broker, url, arguments.messages))
            print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
    report(costs, arguments.broker)
    return 0


@contextmanager
def server(broker: str, url: str) -> Iterator[str]:
    """The broker's address. Starts NATS, or a RabbitMQ that is installed, if there is none."""
    with ExitStack() as started:
        if not url:
            try:
                url = started.enter_context(embedded(broker))
            except FileNotFoundError as error:
                raise SystemExit(str(error)) from error
        yield url


def embedded(broker: str) -> AbstractContextManager[str]:
    if broker == "kafka":  # its embedded cluster is a mock, which says nothing about cost
        raise FileNotFoundError(
            "make bench needs a real Kafka. Set its address, for example BROKER_URL=127.0.0.1:9092"
            " for `docker compose up kafka` in a baked project."
        )
    module = importlib.import_module(f"faststream_otel.{broker}.embedded")
    made: AbstractContextManager[str] = getattr(module, f"embedded_{broker}")()
    return made


class Receiver:
    """The library's OTLP receiver, in its own process."""

    SCRIPT = """
import sys
from faststream_otel.dev.receiver import OtlpReceiver
with OtlpReceiver(capacity=1000) as receiver:
    print(receiver.grpc_endpoint, flush=True)
    sys.stdin.read()
"""

    def __enter__(self) -> str:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.SCRIPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def __exit__(self, *_: object) -> None:
        self.process.communicate("")


def measure(run: Run, endpoint: str, broker: str, url: str, messages: int) -> float:
    """CPU microseconds per message and hop."""
    name, tuned = run
    command = [
        sys.executable, "-m", "bench.variant", name, f"--broker={broker}", f"--broker-url={url}",
        f"--messages={messages}", *(["--tuned"] if tuned else []),
    ]  # fmt: skip
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_INSECURE": "true",
        "OTEL_BSP_MAX_QUEUE_SIZE": "100000",  # so that no variant wins by dropping
        **({} if name == "ours+all" else TRACES_ONLY),
    }
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=180,
    )
    if done.returncode:
        raise SystemExit(f"{name} failed with {broker} at {url}:\n{done.stderr[-2000:]}")
    answer = json.loads(done.stdout.splitlines()[-1])
    seconds: float = answer["cpu_seconds"]
    return seconds / (messages * int(answer["hops"])) * 1e6


def report(costs: dict[Run, list[float]], broker: str) -> None:
    print(f"{'variant':<20}{'settings':<12}{'CPU us per hop: min':>20}{'median':>9}{'max':>9}")
    for (name, tuned), values in costs.items():
        print(
            f"{name:<20}{'as baked' if tuned else 'FastStream':<12}"
            f"{min(values):>20.0f}{statistics.median(values):>9.0f}{max(values):>9.0f}"
        )
    for what, ours, theirs, limit in RATIOS:
        # Ratios within a round, because the machine's speed varies between rounds.
        ratios = [mine / other for mine, other in zip(costs[ours], costs[theirs], strict=True)]
        wanted = f", at most {limit}" if limit and broker == "kafka" else ""
        print(f"{what}: {statistics.median(ratios):.2f} (rounds: {min(ratios):.2f} to"
              f" {max(ratios):.2f}{wanted})")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
