"""Bakes every value of every option, and checks the projects with the real tools."""

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from bakery import Bakery
from matrix import OPTIONS, QUESTIONS, TEMPLATE, Answers, matrix
from packaging.requirements import Requirement
from packaging.version import Version
from repository import git
from tools import docker_compose, tool

LIBRARY = "libs/faststream-otel"
VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")  # with its default, as Compose reads it
CONFIG_FOLDER = "observability/otel-collector/config"
CONNECTION = (
    f"CONFIG_FOLDER={CONFIG_FOLDER}",
    "OTLP_TOKEN=0123",
    "FORWARD_ENDPOINT=https://otlp.example",
)
NO_FILES = {"none", "compose"}
"""Answers that add nothing."""
LEFT_OVER = re.compile(r"cookiecutter\s*[.|}]|\{%-? |\{#|quote\.j2")


def text_files(project: Path) -> list[Path]:
    generated = {".git", ".venv", "__pycache__", "uv.lock"}
    return [
        path
        for path in sorted(project.rglob("*"))
        if path.is_file()
        and not generated.intersection(path.parts)
        and b"\0" not in path.read_bytes()
    ]


def files(project: Path, *suffixes: str) -> list[Path]:
    found = [path for path in text_files(project) if path.suffix in suffixes]
    assert found, f"no {suffixes} in {project}"
    return found


def test_the_matrix_bakes_every_value_of_every_option() -> None:
    baked = {(option, value) for answers in matrix() for option, value in answers.items()}
    assert baked == {(option, value) for option, values in OPTIONS.items() for value in values}


def test_every_overlay_is_a_value_of_an_option() -> None:
    """Also those inside an overlay."""
    overlays = TEMPLATE / "{{cookiecutter.project_slug}}" / "overlays"
    for folder in (overlays, *overlays.glob("*/*/overlays")):
        laid = {(path.parent.name, path.name) for path in folder.glob("*/*")}
        asked = {(path.name, value) for path in folder.iterdir() for value in OPTIONS[path.name]}
        assert laid == {(option, value) for option, value in asked if value not in NO_FILES}


def test_nothing_of_the_template_is_left(pair: Path) -> None:
    assert not (pair / "overlays").exists()
    assert not (pair / "env.example").exists()  # it is in .env.example
    left = [
        f"{path.relative_to(pair)}:{number}: {line.strip()}"
        for path in text_files(pair)
        # Minified scripts have any sequence of characters in them; what is ours has short lines.
        if ".min." not in path.name and path.suffix not in {".js", ".css"}
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if LEFT_OVER.search(line)
    ]
    assert left == []
    assert [path for path in pair.rglob("*") if "{{" in path.name] == []


def test_its_readme_is_read_on_the_first_day(pair: Path) -> None:
    assert len((pair / "README.md").read_text("utf-8").splitlines()) <= 120


def test_configuration_parses(pair: Path) -> None:
    for path in files(pair, ".yaml", ".yml"):
        list(yaml.compose_all(path.read_text("utf-8"), Loader=yaml.SafeLoader))
    for path in files(pair, ".toml"):
        tomllib.loads(path.read_text("utf-8"))
    for path in files(pair, ".json"):
        json.loads(path.read_text("utf-8"))


def test_lint_is_clean(project: Path, bakery: Bakery) -> None:
    bakery.run(project, "make", "lint")


@pytest.mark.parametrize("broker", OPTIONS["broker"])
def test_its_own_tests_pass(broker: str, bakery: Bakery, tmp_path: Path) -> None:
    """No other answer changes the code: test_overlays.py."""
    bakery.run(bakery.bake({"broker": broker}, tmp_path), "make", "test")


def test_the_library_is_the_templates_to_the_byte(project: Path) -> None:
    """And nothing is beside it, such as a cache of the clone's."""
    folder = TEMPLATE / "{{cookiecutter.project_slug}}" / LIBRARY
    listed = git(folder, "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    names = {name for name in listed.split("\0") if (folder / name).is_file()}
    assert "pyproject.toml" in names
    baked = project / LIBRARY
    found = {path.relative_to(baked) for path in baked.rglob("*") if path.is_file()}
    made = {path for path in found if "__pycache__" in path.parts}  # by what ran in the bake
    assert {str(path) for path in found - made} == names
    assert [
        name for name in names if (baked / name).read_bytes() != (folder / name).read_bytes()
    ] == []


def test_it_takes_the_library_that_it_holds(project: Path) -> None:
    """And releases of the same minor version, once its team deletes the folder."""
    (wanted,) = (
        Requirement(one)
        for one in tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"][
            "dependencies"
        ]
        if one.startswith("faststream-otel")
    )
    held = Version(QUESTIONS["_template_version"])
    assert wanted.specifier.contains(held, prereleases=True)
    assert wanted.specifier.contains(f"{held.major}.{held.minor}.99")
    assert not wanted.specifier.contains(f"{held.major}.{held.minor + 1}.0")


def test_make_alone_lists_every_target(project: Path, bakery: Bakery) -> None:
    bakery.run(project, "sh", "-c", "make | grep -q 'make demo ' && make | grep -q 'make up '")


@pytest.mark.parametrize("file", ["compose.yaml", "observability/compose.yaml"])
def test_compose_accepts_it(pair: Path, file: str, bakery: Bakery) -> None:
    bakery.run(pair, *docker_compose(f"Compose reads {file}"), "-f", file, "config", "--quiet")


def test_the_image_runs_the_python_that_was_chosen(project: Path, answers: Answers) -> None:
    assert f"python:{answers['python_version']}-slim" in (project / "Dockerfile").read_text()


def test_the_licence_is_the_one_that_was_chosen(project: Path, answers: Answers) -> None:
    titles = {
        "MIT": "MIT License",
        "Apache-2.0": "Apache License",
        "BSD-3-Clause": "BSD 3-Clause License",
    }
    metadata = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]
    if answers["license"] == "none":
        assert not (project / "LICENSE").exists()
        assert metadata["license"] == "LicenseRef-Proprietary"
    else:
        text = (project / "LICENSE").read_text("utf-8")
        assert titles[answers["license"]] in text
        assert re.search(r"Copyright (\(c\) )?20\d\d,? Your Name\n", text)
        assert metadata["license"] == answers["license"]


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"TRACE_SAMPLING": "tail"},
        {"OTLP_TLS": "server", "OTLP_AUTH": "bearer"},
        {"OTLP_TLS": "mutual", "OTLP_AUTH": "basic"},
        {"FORWARD": "otlp"},
        {"REDACTION": "off", "COLLECTOR_DEBUG": "on"},
    ],
    ids=lambda chosen: "-".join(chosen.values()) or "default",
)
def test_the_collector_accepts_its_configuration(
    project: Path, chosen: dict[str, str], bakery: Bakery
) -> None:
    """Merged as the compose file has it."""
    collector = tool("otelcol-contrib", "the Collector reads its configuration")
    text = (project / "observability/compose.yaml").read_text("utf-8")
    parts = [
        VARIABLE.sub(lambda found: chosen.get(found[1], found[2]), part).replace(
            "/etc/otelcol", CONFIG_FOLDER
        )
        for part in yaml.safe_load(text)["services"]["otel-collector"]["command"]
    ]
    bakery.run(project, "env", *CONNECTION, collector, "validate", *parts)


def test_stores_stop_after_the_collector(project: Path, answers: Answers) -> None:
    """So that they get what it sends last."""
    text = (project / "observability/compose.yaml").read_text("utf-8")
    before = yaml.safe_load(text)["services"]["otel-collector"]["depends_on"]
    assert {"prometheus", "loki", answers["trace_backend"]} == {*before}


def test_prometheus_accepts_its_configuration(project: Path, bakery: Bakery) -> None:
    promtool = tool("promtool", "Prometheus reads its configuration")
    bakery.run(project, promtool, "check", "config", "observability/prometheus/prometheus.yaml")


def test_tempo_accepts_its_configuration(project: Path, answers: Answers, bakery: Bakery) -> None:
    if answers["trace_backend"] != "tempo":
        pytest.skip("the traces go elsewhere")
    tempo = tool("tempo", "Tempo reads its configuration")
    (config,) = files(project / "observability/tempo", ".yaml")
    bakery.run(project, tempo, "-config.verify", f"-config.file={config}")


def test_jaeger_accepts_its_configuration(project: Path, answers: Answers, bakery: Bakery) -> None:
    if answers["trace_backend"] != "jaeger":
        pytest.skip("the traces go elsewhere")
    jaeger = tool("jaeger", "Jaeger reads its configuration")
    (config,) = files(project / "observability/jaeger", ".yaml")
    bakery.run(project, jaeger, "validate", f"--config={config}")


def test_loki_accepts_its_configuration(project: Path, bakery: Bakery) -> None:
    loki = tool("loki", "Loki reads its configuration")
    (config,) = files(project / "observability/loki", ".yaml")
    bakery.run(project, loki, "-verify-config", f"-config.file={config}")
