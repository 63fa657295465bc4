"""CPU time of the Collector as it is baked, for the spans of a service."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from collector import baked_arguments
from ports import free_ports

from ..figures import Spread, table
from ..run import Load, Wrong, measure
from ..variants import ROOT, VARIANTS
from . import Bench

LOAD = Load(4000, warm_up=10)
PROGRAM = "otelcol-contrib"
ROUNDS = 3


def run(bench: Bench) -> Any:
    program = program_path()
    if program is None or not Path("/proc/self/stat").exists():
        missing = "Linux's /proc" if program else f"{PROGRAM} on the PATH or in STACK_HOME/bin"
        return {"missing": missing}
    version = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
    service = VARIANTS["service"]
    # Spans alone, to know what they take.
    alone = replace(service, variables={**service.variables, "OTEL_LOGS_EXPORTER": "none"})
    load, found = bench.load(LOAD), []
    with (
        tempfile.TemporaryDirectory() as folder,
        running(program, Path(folder), bench) as (
            process,
            endpoint,
        ),
    ):
        for _ in range(bench.rounds):
            before, wanted = cpu_seconds(process.pid), load.published * load.hops * 2
            arrived = bench.sink.counts()["spans"]
            measure(alone, bench.site, bench.sink, load, collector=endpoint)
            ends = time.monotonic() + 60
            while (spans := bench.sink.counts()["spans"] - arrived) < wanted:
                if time.monotonic() > ends:
                    raise Wrong(f"{spans} of {wanted} spans came through the Collector")
                time.sleep(0.2)
            found.append(
                {"spans": spans, "cpu_ms": 1000 * (cpu_seconds(process.pid) - before) / spans * 1e3}
            )
    return {"version": version.split()[-1], "rounds": found}


def program_path() -> str | None:
    home = Path(os.environ.get("STACK_HOME", Path.home() / ".cache/project-stack"), "bin")
    return shutil.which(PROGRAM, path=f"{os.environ.get('PATH', '')}{os.pathsep}{home}")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def running(
    program: str, folder: Path, bench: Bench
) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """The baked configuration, its traces' store replaced by the counting receiver."""
    subprocess.run(
        [sys.executable, "-m", "cookiecutter", "--no-input", "--output-dir", folder, ROOT],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    config = folder / "order-flow/observability/otel-collector/config"
    grpc, http, health, metrics = free_ports(4)
    reader = {"pull": {"exporter": {"prometheus": {"host": "127.0.0.1", "port": metrics}}}}
    ends = {
        "receivers": {
            "otlp": {
                "protocols": {
                    "grpc": {"endpoint": f"127.0.0.1:{grpc}"},
                    "http": {"endpoint": f"127.0.0.1:{http}"},
                }
            }
        },
        "exporters": {
            "otlp_grpc/tempo": {"endpoint": bench.sink.grpc.removeprefix("http://")},
            "nop": {},
        },
        "extensions": {"health_check": {"endpoint": f"127.0.0.1:{health}"}},
        "service": {
            "pipelines": {
                # Without host_metrics: the queue has no volume of its own here.
                "metrics": {"receivers": ["otlp"], "exporters": ["nop"]},
                "metrics/from_spans": {"exporters": ["nop"]},
                "logs": {"exporters": ["nop"]},
            },
            "telemetry": {"metrics": {"readers": [reader]}},
        },
    }
    (folder / "ends.yaml").write_text(json.dumps(ends))  # which is YAML too
    arguments = [*baked_arguments(config), f"--config={folder / 'ends.yaml'}"]
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [program, *arguments],
            env=os.environ
            | {"CONFIG_FOLDER": str(config), "QUEUE_DIRECTORY": str(folder / "queue")},
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{health}", timeout=1).close()
                break
            except OSError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise Wrong(f"the Collector did not start:\n{log.read_text()}") from error
                time.sleep(0.2)
        yield process, f"http://127.0.0.1:{http}"
    finally:
        process.terminate()
        process.wait(30)


def tables(result: Any) -> dict[str, str]:
    if "missing" in result:
        return {"collector": f"Not measured: there was no {result['missing']}."}
    cpu = Spread.of(one["cpu_ms"] for one in result["rounds"])
    row = [f"Collector {result['version']}, as it is baked", cpu.text(0)]
    return {"collector": table(["", "CPU time per 1,000 spans, ms"], [row])}
