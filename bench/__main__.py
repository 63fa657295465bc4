"""Measure CPU time per message and hop, with variants interleaved in one run; report ratios.

Needs a real Kafka (`docker compose up` in a baked project, or BROKER_URL). Measures the library of
this repository. An OTLP receiver runs beside the variants and is not measured.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

VARIANT = Path(__file__).with_name("variant.py")

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
        "--broker",
        default=os.environ.get("BROKER_URL", "127.0.0.1:9092"),
        help="a real Kafka (default BROKER_URL, or 127.0.0.1:9092)",
    )
    arguments = parser.parse_args()

    costs: dict[Run, list[float]] = {run: [] for run in RUNS}
    with Receiver() as endpoint:
        for number in range(arguments.rounds):
            for run in RUNS if number % 2 == 0 else reversed(RUNS):
                costs[run].append(measure(run, endpoint, arguments.broker, arguments.messages))
            print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
    report(costs)
    return 0


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


def measure(run: Run, endpoint: str, broker: str, messages: int) -> float:
    """CPU microseconds per message and hop."""
    name, tuned = run
    command = [
        sys.executable, str(VARIANT), name,
        f"--broker={broker}", f"--messages={messages}", *(["--tuned"] if tuned else []),
    ]  # fmt: skip
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_INSECURE": "true",
        "OTEL_BSP_MAX_QUEUE_SIZE": "100000",  # so that no variant wins by dropping
        **({} if name == "ours+all" else TRACES_ONLY),
    }
    done = subprocess.run(
        command,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=180,
    )
    if done.returncode:
        raise SystemExit(f"{name} failed at {broker}:\n{done.stderr[-2000:]}")
    answer = json.loads(done.stdout.splitlines()[-1])
    seconds: float = answer["cpu_seconds"]
    return seconds / (messages * int(answer["hops"])) * 1e6


def report(costs: dict[Run, list[float]]) -> None:
    print(f"{'variant':<20}{'settings':<12}{'CPU us per hop: min':>20}{'median':>9}{'max':>9}")
    for (name, tuned), values in costs.items():
        print(
            f"{name:<20}{'as baked' if tuned else 'FastStream':<12}"
            f"{min(values):>20.0f}{statistics.median(values):>9.0f}{max(values):>9.0f}"
        )
    for what, ours, theirs, limit in RATIOS:
        # Ratios within a round, because the machine's speed varies between rounds.
        ratios = [mine / other for mine, other in zip(costs[ours], costs[theirs], strict=True)]
        wanted = f", at most {limit}" if limit else ""
        print(f"{what}: {statistics.median(ratios):.2f} (rounds: {min(ratios):.2f} to"
              f" {max(ratios):.2f}{wanted})")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
