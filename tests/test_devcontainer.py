"""The dev containers: their forwarded ports and their setup."""

import json
import re
from pathlib import Path
from typing import Any

from bakery import Bakery
from matrix import TEMPLATE, Answers
from ports import free_ports
from repository import commit, copy_of_the_template, git
from tools import tool

PORT = re.compile(r"^#?\w+_PORT=(\d+)$", re.MULTILINE)
PINNED_FEATURE = re.compile(r"[a-z./-]+:\d+\.\d+\.\d+")


def devcontainer(root: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(
        (root / ".devcontainer/devcontainer.json").read_text("utf-8")
    )
    return config


def test_every_port_is_forwarded_with_a_name(project: Path) -> None:
    listening = {int(port) for port in PORT.findall((project / ".env.example").read_text("utf-8"))}
    assert {8000, 3000, 4317} <= listening
    config = devcontainer(project)
    named = config["portsAttributes"]
    assert set(config["forwardPorts"]) == listening
    assert {int(port) for port in named if port.isdecimal()} == listening
    assert all(port["label"] for port in named.values())


def test_the_services_of_make_dev_have_a_name_too(project: Path) -> None:
    """All but the first use the ports above it: `service_ports` of the library."""
    (ports,) = (name for name in devcontainer(project)["portsAttributes"] if "-" in name)
    first, last = map(int, ports.split("-"))
    services = [*(project / "src").glob("*/services/[!_]*.py")]
    assert first == 8001
    assert last - first >= 2 * len(services)


def test_its_python_is_the_one_that_was_chosen(project: Path, answers: Answers) -> None:
    assert devcontainer(project)["containerEnv"]["UV_PYTHON"] == answers["python_version"]


def test_both_are_alike(default_project: Path) -> None:
    """The template's own is for the project that it bakes."""
    assert (TEMPLATE / ".devcontainer/Dockerfile").read_bytes() == (
        default_project / ".devcontainer/Dockerfile"
    ).read_bytes()
    ours, baked = devcontainer(TEMPLATE), devcontainer(default_project)
    different = {"name", "containerEnv", "postCreateCommand"}
    assert {key: value for key, value in ours.items() if key not in different} == {
        key: value for key, value in baked.items() if key not in different
    }


def test_features_are_pinned(default_project: Path) -> None:
    features = devcontainer(default_project)["features"]
    assert any("docker-in-docker" in feature for feature in features)
    assert [feature for feature in features if not PINNED_FEATURE.fullmatch(feature)] == []


def test_renovate_finds_the_features() -> None:
    """Those of the baked one too, where it lies here, and is no JSON yet."""
    managers = json.loads((TEMPLATE / "renovate.json").read_text("utf-8"))["customManagers"]
    patterns = [
        manager["matchStrings"][0].replace("(?<", "(?P<")
        for manager in managers
        if "devcontainer" in manager["managerFilePatterns"][0]
    ]
    for folder in (".devcontainer", "{{cookiecutter.project_slug}}/.devcontainer"):
        text = (TEMPLATE / folder / "devcontainer.json").read_text("utf-8")
        found = [match["depName"] for match in re.finditer(patterns[0], text)]
        assert found == ["ghcr.io/devcontainers/features/docker-in-docker"]


def test_its_dockerfile_is_sound(default_project: Path, bakery: Bakery) -> None:
    hadolint = tool("hadolint", "the dev container's Dockerfile is sound")
    bakery.run(default_project, hadolint, ".devcontainer/Dockerfile")


def prepare_and_make_dev(bakery: Bakery, clone: Path, **variables: str) -> None:
    """Do what a fresh container does once, then `make dev`, with the variables set there."""
    config = devcontainer(clone)
    (port,) = free_ports(1)
    there = config["containerEnv"] | variables | {"ORDERS_PORT": str(port)}
    settings = [f"{name}={value}" for name, value in there.items()]
    bakery.run(clone, "env", *settings, "sh", "-ec", config["postCreateCommand"])

    said = bakery.make_dev(clone, there)
    assert f"http://127.0.0.1:{port}\n" in said
    assert "Traceback" not in said


def test_in_a_clone_make_dev_runs(bakery: Bakery, tmp_path: Path) -> None:
    project = bakery.bake({}, tmp_path / "baked")
    commit(project, "baked")
    git(tmp_path, "clone", "--quiet", str(project), "order-flow")
    clone = tmp_path / "order-flow"
    prepare_and_make_dev(
        bakery,
        clone,
        # Its Python is not here, and no other test's packages are to be there.
        UV_PYTHON=bakery.environment()["UV_PYTHON"],
        UV_PROJECT_ENVIRONMENT=".venv",
    )
    assert "GRAFANA_ADMIN_PASSWORD=" in (clone / ".env").read_text("utf-8")
    assert "GRAFANA_ADMIN_PASSWORD=" in (clone / "observability/.env").read_text("utf-8")


def test_in_a_clone_of_the_template_make_dev_runs(bakery: Bakery, tmp_path: Path) -> None:
    """With packages of its own and of what it bakes, each in its own place."""
    clone = copy_of_the_template(tmp_path / "faststream-otel")
    prepare_and_make_dev(bakery, clone, UV_PROJECT_ENVIRONMENT=".venv")
    assert (clone / ".venv").is_dir()
    assert (clone / "build/order-flow/.venv").is_dir()
