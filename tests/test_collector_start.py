"""The Collector's start script: when it sets the queue aside, and what it passes on."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

PANIC = """panic: assertion failed: Page expected to be: 32, but self identifies as 0

goroutine 1 [running]:
go.etcd.io/bbolt/internal/common.Assert(...)
go.etcd.io/bbolt.(*DB).page(0x7a1, 0x20)
"""
PANIC_ELSEWHERE = """panic: assignment to entry in nil map

goroutine 41 [running]:
example.org/processor.(*cache).add(0x7a1)

goroutine 52 [select]:
go.etcd.io/bbolt.(*DB).Update(0x7a1, 0x20)
"""
LOGGED = """2026-01-01T00:00:00.000Z\terror\tfilestorage/client.go:1\tcompaction failed
go.etcd.io/bbolt.(*DB).View
"""
UNREADABLE = "Error: cannot start pipelines: invalid database\n"


def start(project: Path, folder: Path, collector: str) -> "subprocess.Popen[str]":
    """Run the script with this shell script for a Collector, and one file in its queue."""
    (folder / "queue").mkdir()
    (folder / "queue/exporter_traces").write_text("spans")
    program = folder / "collector"
    program.write_text(f"#!/bin/sh\n{collector}\n")
    program.chmod(0o755)
    busybox = shutil.which("busybox") or "env"  # which runs the system's own programs
    return subprocess.Popen(
        [busybox, "sh", str(project / "observability/otel-collector/config/start.sh")],
        env=os.environ | {
            "BUSYBOX": busybox, "COLLECTOR": str(program),
            "LOG_PIPE": str(folder / "pipe"), "QUEUE_DIRECTORY": str(folder / "queue"),
        },
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("output", "status", "aside"),
    [
        (PANIC, 2, True),
        (UNREADABLE, 1, True),
        (PANIC_ELSEWHERE, 2, False),
        (LOGGED, 1, False),
        ("Error: invalid configuration\n", 1, False),
        (UNREADABLE, 0, False),
    ],
    ids=["panic in the queue", "unreadable", "panic elsewhere", "logged", "other", "no error"],
)
def test_only_a_damaged_queue_is_set_aside(
    output: str, status: int, aside: bool, default_project: Path, tmp_path: Path
) -> None:
    (tmp_path / "output").write_text(output)
    process = start(default_project, tmp_path, f"cat '{tmp_path}/output'; exit {status}")
    said, _ = process.communicate(timeout=20)
    assert process.returncode == status
    assert said.startswith(output)
    moved = [*(tmp_path / "queue/damaged").rglob("exporter_traces")]
    assert (len(moved) == 1) is aside
    assert (tmp_path / "queue/exporter_traces").exists() is not aside


def test_a_hangup_reaches_the_collector(default_project: Path, tmp_path: Path) -> None:
    """It reads its configuration again, and goes on."""
    process = start(
        default_project, tmp_path,
        "trap 'echo read again' HUP; trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done",
    )  # fmt: skip
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    for _ in range(2):
        process.send_signal(signal.SIGHUP)
        assert process.stdout.readline() == "read again\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0


def test_a_stop_waits_for_the_last_of_the_log(default_project: Path, tmp_path: Path) -> None:
    process = start(
        default_project, tmp_path,
        "trap 'sleep 0.5; echo flushed; exit 0' TERM; echo ready; while :; do sleep 0.1; done",
    )  # fmt: skip
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=20)
    assert said == "flushed\n"
    assert process.returncode == 0
