"""Commands run against the running services, or say that none are running."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from faststream_otel.dev.local import ENVIRONMENT, running_environment
from faststream_otel.dev.project import Project

PROGRAM = """
import sys
from faststream_otel.cli.development import main
sys.executable = "python"
sys.exit(main(None, ["exec", *sys.argv[1:]]))
"""


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)


def execute(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `exec` where the project's folder holds all programs that there are."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=os.environ | {"PATH": str(project.root)}, capture_output=True, encoding="utf-8",
    )  # fmt: skip


def test_during_a_local_run_it_is_a_process_with_that_runs_broker(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKER_PASSWORD", "of another broker")
    program(project.root / "python", 'echo "$BROKER_URL$BROKER_PASSWORD" "$@"; exit 3')
    path = project.root / ENVIRONMENT
    path.parent.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        broker = f"127.0.0.1:{server.getsockname()[1]}"
        path.write_text(json.dumps({"BROKER_URL": broker}))
        done = execute(project, "replay", "--all", "--help")
    assert done.returncode == 3
    assert done.stdout == (f"{broker} -m faststream_otel.cli --app shop replay --all --help\n")


def test_in_docker_it_is_a_container(project: Project) -> None:
    program(project.root / "docker", 'echo "$@"\ncase "$*" in *" run "*) exit 3;; esac')
    done = execute(project, "replay", "--all")
    assert done.returncode == 3
    assert done.stdout == "compose --progress quiet run --rm --no-deps tools replay --all\n"


@pytest.mark.parametrize("docker", ["exit 0", None])
def test_without_running_services_it_says_how_to_start_them(
    docker: str | None, project: Project
) -> None:
    if docker:
        program(project.root / "docker", docker)
    done = execute(project, "dead-letters")
    assert done.returncode == 1
    assert done.stderr.startswith("No services are running: run `make up`, or ")


def test_a_run_is_found_while_it_lasts(project: Project) -> None:
    path = project.root / ENVIRONMENT
    path.parent.mkdir()
    assert running_environment(project) is None
    with socket.create_server(("127.0.0.1", 0)) as server:
        left = {"BROKER_URL": f"127.0.0.1:{server.getsockname()[1]}", "OTEL_LOG_LEVEL": "info"}
        path.write_text(json.dumps(left))
        assert running_environment(project) == left
    assert running_environment(project) is None  # killed, and so the file is still there
    path.write_text("{")
    assert running_environment(project) is None
