"""Commands of the package run where the services do, or say that none run."""

import json
import os
import socket
import stat
from pathlib import Path

import pytest

from faststream_otel.dev import command, local
from faststream_otel.kafka.embedded import embedded_kafka


def test_with_make_dev_it_is_a_process_with_its_broker(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with embedded_kafka(["dead-letters"]) as broker:
        monkeypatch.setattr(local, "environment", lambda: {"BROKER_URL": broker})
        assert command.main(["dead-letters"]) == 0
        assert capfd.readouterr().out == "No open dead letters.\n"
        assert command.main(["replay"]) == 2


def test_with_make_up_it_is_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\necho "$@"\ncase "$*" in *" run "*) exit 3;; esac\n')
    docker.chmod(docker.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(local, "environment", lambda: None)
    assert command.main(["replay", "--all"]) == 3
    assert capfd.readouterr().out == (
        "compose --progress quiet run --rm --no-deps tools replay --all\n"
    )


@pytest.mark.parametrize("docker", ["exit 0", None])
def test_where_nothing_runs_it_says_how_to_start(
    docker: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if docker:
        (tmp_path / "docker").write_text(f"#!/bin/sh\n{docker}\n")
        (tmp_path / "docker").chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(local, "environment", lambda: None)
    assert command.main(["dead-letters"]) == 1
    assert capfd.readouterr().err.startswith("Nothing runs here: start it with `make up`, or ")


def test_a_run_is_known_for_as_long_as_it_lasts(tmp_path: Path) -> None:
    path = tmp_path / local.ENVIRONMENT
    path.parent.mkdir()
    assert local.environment(tmp_path) is None
    with socket.create_server(("127.0.0.1", 0)) as server:
        told = {"BROKER_URL": f"127.0.0.1:{server.getsockname()[1]}", "OTEL_LOG_LEVEL": "info"}
        path.write_text(json.dumps(told))
        assert local.environment(tmp_path) == told
    assert local.environment(tmp_path) is None  # killed, and so not tidied up
    path.write_text("{")
    assert local.environment(tmp_path) is None
