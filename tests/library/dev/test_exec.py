"""Commands of the library run where the services do, or say that none run."""

import json
import os
import socket
from pathlib import Path

import pytest
from faststream_otel.cli.development import main
from faststream_otel.dev import exec as execution
from faststream_otel.dev.local import ENVIRONMENT, running_environment
from faststream_otel.dev.project import Project


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)


def test_beside_a_local_run_it_is_a_process_with_its_broker(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    program(project.root / "python", 'echo "$BROKER_URL" "$@"; exit 3')
    monkeypatch.setattr("sys.executable", str(project.root / "python"))
    monkeypatch.setattr(execution, "running_environment", lambda project: {"BROKER_URL": "b:1"})
    assert main(None, ["exec", "replay", "--all", "--help"]) == 3
    assert capfd.readouterr().out == (
        "b:1 -m faststream_otel.cli --app shop replay --all --help\n"
    )


def test_in_docker_it_is_a_container(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    program(project.root / "docker", 'echo "$@"\ncase "$*" in *" run "*) exit 3;; esac')
    monkeypatch.setenv("PATH", str(project.root), prepend=os.pathsep)
    assert main(None, ["exec", "replay", "--all"]) == 3
    assert capfd.readouterr().out == (
        "compose --progress quiet run --rm --no-deps tools replay --all\n"
    )


@pytest.mark.parametrize("docker", ["exit 0", None])
def test_where_nothing_runs_it_says_how_to_start(
    docker: str | None,
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if docker:
        program(project.root / "docker", docker)
    monkeypatch.setenv("PATH", str(project.root))
    assert main(None, ["exec", "dead-letters"]) == 1
    assert capfd.readouterr().err.startswith("Nothing runs here: start it with `make up`, or ")


def test_a_run_is_known_for_as_long_as_it_lasts(project: Project) -> None:
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
