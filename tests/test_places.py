"""Baking keeps existing files, protects secrets, and needs no network."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from bakery import Bakery
from cookiecutter.main import cookiecutter
from matrix import Answers
from repository import copy_files, copy_of_the_template, git

OLDEST_COOKIECUTTER = "2.6.0"

# Put before Python's own modules: a bake that opens a connection fails.
NO_NETWORK = """
import socket
def refuse(*args, **kwargs):
    raise OSError("baking must not use the network")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
"""


def passwords(project: Path) -> dict[str, str]:
    return {
        str(env.relative_to(project)): password
        for env in project.rglob(".env")
        for password in re.findall(r"^GRAFANA_ADMIN_PASSWORD=(.*)$", env.read_text(), re.MULTILINE)
    }


def test_every_env_file_holds_one_random_password(bakery: Bakery, tmp_path: Path) -> None:
    first = passwords(bakery.bake({}, tmp_path / "first"))
    second = passwords(bakery.bake({}, tmp_path / "second"))
    assert first.keys() == second.keys() == {".env", "observability/.env"}
    assert len(set(first.values())) == len(set(second.values())) == 1
    assert set(first.values()) != set(second.values())
    assert min(map(len, first.values())) >= 20


def test_only_the_owner_reads_the_env_files(default_project: Path) -> None:
    for env in default_project.rglob(".env"):
        assert stat.S_IMODE(env.stat().st_mode) == 0o600


def test_git_sees_the_examples_and_not_the_secrets(bakery: Bakery, tmp_path: Path) -> None:
    project = bakery.bake({}, tmp_path)
    keys = ["certificates/client.key", "observability/certificates/collector.key"]
    for key in keys:
        (project / key).touch()
    git(project, "init", "--quiet")
    seen = git(project, "status", "--porcelain", "--untracked-files=all").split()
    assert {".env.example", "observability/.env.example"} <= set(seen)
    assert not {".env", "observability/.env", *keys}.intersection(seen)


def test_make_restores_lost_env_files_and_keeps_existing_ones(
    bakery: Bakery, tmp_path: Path
) -> None:
    project = bakery.bake({}, tmp_path)
    (project / "observability/.env").unlink()
    kept = passwords(project)[".env"]
    bakery.run(project, "make", ".env", "observability/.env")
    assert passwords(project) == {".env": kept, "observability/.env": kept}

    (project / ".env").unlink()
    bakery.run(project, "make", ".env", "observability/.env")
    assert passwords(project)[".env"] not in {"", kept}
    assert stat.S_IMODE((project / ".env").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("deployment", "more"),
    [("compose", []), ("kubernetes", ["make k8s-up              # or, in Kubernetes"])],
)
def test_the_next_steps_are_printed_last(
    deployment: str, more: list[str], bakery: Bakery, tmp_path: Path
) -> None:
    into = tmp_path / "a path with spaces"
    said = bakery.cookiecutter({"deployment": deployment}, into).stdout.splitlines()
    assert [line.strip() for line in said if line.strip()][-4 - len(more) :] == [
        f"cd '{into}/order-flow'",
        "docker compose up        # or, without Docker: make dev",
        *more,
        "A first commit lets later updates merge with your changes:",
        "git init && git add --all && git commit --message 'Bake the project'",
    ]


def test_the_printed_commit_has_no_secret(bakery: Bakery, tmp_path: Path) -> None:
    done = bakery.cookiecutter({}, tmp_path)
    command = done.stdout.rstrip().splitlines()[-1]
    project = tmp_path / "order-flow"
    assert command.startswith("    git init")
    git_author = {"GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@example.org"}
    git_committer = {"GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@example.org"}
    subprocess.run(
        ["sh", "-c", command], cwd=project, check=True, capture_output=True,
        env=os.environ | git_author | git_committer,
    )  # fmt: skip
    committed = git(project, "ls-files").split()
    assert "compose.yaml" in committed
    assert not [name for name in committed if Path(name).name == ".env"]


def test_a_folder_that_is_not_empty_is_refused(bakery: Bakery, tmp_path: Path) -> None:
    theirs = tmp_path / "order-flow" / "compose.yaml"
    theirs.parent.mkdir()
    theirs.write_text("theirs")

    for options in (), ("--overwrite-if-exists",):
        done = bakery.cookiecutter({}, tmp_path, *options)
        assert done.returncode != 0
        (reason,) = done.stdout.splitlines()
        assert "not empty" in reason
        assert "cruft update" in reason

    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [theirs]
    assert theirs.read_text() == "theirs"


def test_a_replay_overwrites_nothing_either(bakery: Bakery, tmp_path: Path) -> None:
    project = bakery.bake({"author": "Ada"}, tmp_path)
    (project / "README.md").write_text("theirs")
    done = bakery.cookiecutter({}, tmp_path, "--replay", "--overwrite-if-exists", prompt=True)
    assert done.returncode != 0
    assert "not empty" in done.stdout.splitlines()[0]
    assert (project / "README.md").read_text() == "theirs"


def test_an_empty_folder_is_welcome(bakery: Bakery, tmp_path: Path) -> None:
    (tmp_path / "order-flow").mkdir()
    assert bakery.cookiecutter({}, tmp_path, "--overwrite-if-exists").returncode == 0
    assert (tmp_path / "order-flow" / "compose.yaml").exists()


def test_inside_another_repository_that_one_is_left_alone(bakery: Bakery, tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    config = (tmp_path / ".git/config").read_text()
    project = bakery.bake({}, tmp_path)
    assert not (project / ".git").exists()
    assert (tmp_path / ".git/config").read_text() == config
    assert git(tmp_path, "status", "--porcelain") == "?? order-flow/\n"


def test_baking_takes_no_network(bakery: Bakery, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(NO_NETWORK)
    done = bakery.cookiecutter({}, tmp_path / "into", env={"PYTHONPATH": str(tmp_path / "site")})
    assert done.returncode == 0, done.stdout


def test_the_api_bakes_too(bakery: Bakery, tmp_path: Path) -> None:
    project = cookiecutter(
        str(bakery.template),
        no_input=True,
        output_dir=str(tmp_path),
        extra_context={"project_name": "Other Flow"},
        config_file=bakery.environment()["COOKIECUTTER_CONFIG"],
    )
    compose = yaml.safe_load((Path(project) / "compose.yaml").read_text("utf-8"))
    assert compose["name"] == "other-flow"


LEFT_BY_TOOLS = (
    *(".mypy_cache/3.11/cache.json", ".ruff_cache/CACHEDIR.TAG", ".pytest_cache/README.md"),
    *(".import_linter_cache/graph.json", ".hypothesis/unicode_data", ".venv/pyvenv.cfg"),
    *("src/faststream_otel/__pycache__/service.cpython-311.pyc", "dist/faststream_otel.tar.gz"),
    *("build/lib/service.py", "src/faststream_otel.egg-info/PKG-INFO", "uv.lock", ".coverage"),
)


def test_what_tools_leave_with_the_library_is_not_baked(bakery: Bakery, tmp_path: Path) -> None:
    """Cookiecutter copies what git ignores too, in a clone that was worked in."""
    template = copy_of_the_template(tmp_path / "template")
    library = template / "{{cookiecutter.project_slug}}/libs/faststream-otel"
    for name in LEFT_BY_TOOLS:
        (library / name).parent.mkdir(parents=True, exist_ok=True)
        (library / name).write_text("left behind")
    assert git(template, "status", "--porcelain") == ""  # all of it is ignored
    project = cookiecutter(
        str(template),
        no_input=True,
        output_dir=str(tmp_path / "into"),
        config_file=bakery.environment()["COOKIECUTTER_CONFIG"],
    )
    tracked = git(library, "ls-files", "-z").split("\0")
    baked = Path(project) / "libs/faststream-otel"
    files = [str(path.relative_to(baked)) for path in baked.rglob("*") if path.is_file()]
    assert sorted(files) == sorted(filter(None, tracked))


def test_the_oldest_supported_cookiecutter_bakes(bakery: Bakery, tmp_path: Path) -> None:
    oldest = ("uvx", "--from", f"cookiecutter=={OLDEST_COOKIECUTTER}", "cookiecutter")
    baked = bakery.cookiecutter({}, tmp_path / "old", program=oldest)
    assert baked.returncode == 0, baked.stdout
    bakery.cookiecutter({}, tmp_path / "new")
    assert tree(tmp_path / "old") == tree(tmp_path / "new")


def tree(folder: Path) -> dict[str, bytes]:
    """Every file's content by its name, but for the random passwords."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".env"
    }


@pytest.mark.parametrize("answers", [{}, {"license": "mit"}, {"author": " "}], ids=str)
def test_nothing_is_left_in_the_temporary_folder(
    answers: Answers, bakery: Bakery, tmp_path: Path
) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    bakery.cookiecutter(answers, tmp_path / "into", env={"TMPDIR": str(scratch)})
    assert [path for path in scratch.rglob("*") if path.is_file()] == []


def test_make_bake_works_beside_what_git_ignores(bakery: Bakery, tmp_path: Path) -> None:
    """Because of the pre_prompt hook cookiecutter copies its template, and follows each link."""
    template = tmp_path / "template"
    copy_files(template)
    (template / ".venv/bin").mkdir(parents=True)
    (template / ".venv/bin/python").symlink_to("/of/a/Python/that/was/removed")
    uv = tmp_path / "bin/uv"
    uv.parent.mkdir()
    uv.write_text(
        "#!/bin/sh\n"
        'while [ "$1" != cookiecutter ]; do shift; done\n'
        f"exec '{sys.executable}' -m \"$@\"\n"
    )
    uv.chmod(0o755)
    into = tmp_path / "a path with spaces"
    environment = bakery.environment()
    done = subprocess.run(
        ["make", "bake", f"INTO={into}", "BROKER=nats"], cwd=template,
        env=environment | {"PATH": f"{uv.parent}:{environment['PATH']}"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "  nats:" in (into / "order-flow/compose.broker.yaml").read_text("utf-8")
