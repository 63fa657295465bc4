"""What `make up` refuses, with the reason: closed files, and the name of another project."""

import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from bakery import COOKIECUTTER, Bakery

CLOSED_UMASK = ("sh", "-c", 'umask 077; exec "$@"', "sh", *COOKIECUTTER)
DOCKER = """#!/bin/sh
case $1 in
    compose) echo 'name: order-flow';;
    ps) echo "$OTHER_FOLDER";;
esac
"""


def make(project: Path, *targets: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *targets], cwd=project, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
    )  # fmt: skip


def mounted(project: Path) -> Iterator[Path]:
    """Every file and folder of the project that a container mounts."""
    for compose in project.rglob("compose*.yaml"):
        for service in yaml.safe_load(compose.read_text("utf-8")).get("services", {}).values():
            for volume in service.get("volumes", []):
                if volume.startswith("."):
                    path = compose.parent / volume.split(":")[0]
                    yield from (path, *path.rglob("*"))


def is_open(path: Path) -> bool:
    needed = 0o005 if path.is_dir() else 0o004
    return path.stat().st_mode & needed == needed


@pytest.fixture
def project(bakery: Bakery, tmp_path: Path) -> Path:
    return bakery.bake({"broker": "nats"}, tmp_path)


def test_containers_can_read_what_is_baked_under_a_closed_umask(
    bakery: Bakery, tmp_path: Path
) -> None:
    done = bakery.cookiecutter({"broker": "nats"}, tmp_path, program=CLOSED_UMASK)
    assert done.returncode == 0, done.stdout
    project = tmp_path / "order-flow"
    paths = set(mounted(project))
    assert {project / "broker/nats-server.conf", project / "observability/loki"} <= paths
    assert [path for path in paths if not is_open(path)] == []
    for env in project.rglob(".env"):
        assert stat.S_IMODE(env.stat().st_mode) == 0o600


def test_closed_files_are_named_and_the_printed_command_opens_them(
    project: Path, bakery: Bakery
) -> None:
    """As in a clone made with umask 077."""
    key = project / "observability/certificates/collector.key"
    key.touch(mode=0o600)
    environment = bakery.environment()
    assert make(project, "readable", **environment).returncode == 0
    for path in project.rglob("*"):
        path.chmod(path.stat().st_mode & 0o700)

    refused = make(project, "readable", **environment)
    assert refused.returncode != 0
    for name in "observability/loki/loki.yaml", "broker/nats-server.conf", "certificates":
        assert f" {name}" in refused.stdout
    assert "collector.key" not in refused.stdout

    (command,) = (
        line.removeprefix("make them readable: ")
        for line in refused.stdout.splitlines()
        if line.startswith("make them readable: ")
    )
    subprocess.run(["sh", "-c", command], cwd=project, check=True)
    assert make(project, "readable", **environment).returncode == 0
    closed = {path.name for path in mounted(project) if not is_open(path)}
    assert closed == {"collector.key", ".gitignore"}
    for secret in key, project / ".env", project / "observability/.env":
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600


@pytest.mark.parametrize("target", ["up", "down"])
def test_a_second_project_of_the_name_is_refused(
    target: str, project: Path, bakery: Bakery, tmp_path: Path
) -> None:
    environment = with_docker(bakery, tmp_path)
    other = tmp_path / "another one"
    other.mkdir()
    refused = make(project, target, **environment, OTHER_FOLDER=str(other))
    assert refused.returncode != 0
    assert f"containers of the project order-flow belong to {other}" in refused.stdout
    assert "COMPOSE_PROJECT_NAME" in refused.stdout


@pytest.mark.parametrize("folder", ["itself", "gone", "none"])
def test_a_project_that_is_alone_or_has_moved_is_not_refused(
    folder: str, project: Path, bakery: Bakery, tmp_path: Path
) -> None:
    environment = with_docker(bakery, tmp_path)
    folders = {"itself": str(project), "gone": "/gone/order-flow", "none": ""}
    done = make(project, "alone", **environment, OTHER_FOLDER=folders[folder])
    assert done.returncode == 0, done.stdout


def with_docker(bakery: Bakery, folder: Path) -> dict[str, str]:
    """An environment whose docker says what the test wants."""
    docker = folder / "bin/docker"
    docker.parent.mkdir()
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    environment = bakery.environment()
    return environment | {"PATH": f"{docker.parent}:{environment['PATH']}"}
