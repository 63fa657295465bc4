"""Workflows, Renovate and pre-commit, of this repository and of every bake."""

import json
import os
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import tools
import yaml
from matrix import TEMPLATE

BAKED = TEMPLATE / "{{cookiecutter.project_slug}}"
WORKFLOWS = sorted(
    path for root in (TEMPLATE, BAKED) for path in (root / ".github/workflows").glob("*.yml")
)
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
IMAGE = re.compile(r"^ *(?:image:|FROM) (.+?)(?: AS \w+)?$", re.MULTILINE)
PINNED_IMAGE = re.compile(r"([a-z][\w./-]*):(v?\d+\.\d+\.\d+[\w.-]*)")
FLOATING = {
    "python:{{ cookiecutter.python_version }}-slim": "a build takes the newest patch release",
    "${COMPOSE_PROJECT_NAME}:local": "it is built here",
    "{{ cookiecutter.project_slug }}:local": "the same, for a cluster",
    "{{ cookiecutter.project_slug }}-jaeger:local": "the same",
    "{{ cookiecutter.project_slug }}-nats:local": "the same",
    "{{ cookiecutter.project_slug }}-otel-collector:local": "the same",
}
"""The images without a version of their own, and why."""


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def name_of(path: Path) -> str:
    return str(path.relative_to(TEMPLATE))


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=name_of)
def test_workflow_is_sound(workflow: Path) -> None:
    run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", str(workflow))
    run(tools.tool("actionlint", "workflows are sound"), str(workflow))


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=name_of)
def test_actions_are_pinned_by_commit(workflow: Path) -> None:
    used = re.findall(r"uses: (.*)", workflow.read_text("utf-8"))
    assert used
    assert [action for action in used if not PINNED.fullmatch(action)] == []


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=name_of)
def test_workflow_runs_no_untrusted_text(workflow: Path) -> None:
    """What a pull request's author writes never becomes part of a command, or sees a secret."""
    text = workflow.read_text("utf-8")
    assert "pull_request_target" not in text
    assert "secrets." not in text
    assert not re.search(r"\$\{\{[^}]*(github\.event|head_ref)", text)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=name_of)
def test_dependencies_are_audited(workflow: Path) -> None:
    """Weekly too, since what is known changes while nothing here does."""
    if workflow.stem == "audit":
        text = workflow.read_text("utf-8")
        assert "  schedule:\n    - cron: " in text
        assert "run: make audit" in text
    assert (workflow.parent / "audit.yml").exists()


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=name_of)
def test_workflow_may_only_read(workflow: Path) -> None:
    """Those that publish may also say who they are, and the site's may write to Pages."""
    text = workflow.read_text("utf-8")
    assert "\npermissions:\n  contents: read\n" in text
    may_write = {"publish": ["id-token"], "site": ["pages", "id-token"]}
    assert re.findall(r"([\w-]+): write", text) == may_write.get(workflow.stem, [])
    assert "write-all" not in text


def test_nothing_is_published_until_the_owner_says_so() -> None:
    """By a tag alone, and by no token that could leak."""
    text = (TEMPLATE / ".github/workflows/publish.yml").read_text("utf-8")
    workflow = yaml.load(text, yaml.BaseLoader)  # to which `on` is no boolean
    assert workflow["on"] == {"push": {"tags": ["v*"]}}
    assert {job["if"] for job in workflow["jobs"].values()} == {"vars.PUBLISH == 'true'"}
    assert "uv publish --trusted-publishing always" in text


def test_no_site_is_published_until_the_owner_says_so() -> None:
    workflow = yaml.safe_load((TEMPLATE / ".github/workflows/site.yml").read_text("utf-8"))
    assert {job["if"] for job in workflow["jobs"].values()} == {"vars.SITE == 'true'"}


FORMS = sorted(TEMPLATE.glob(".github/ISSUE_TEMPLATE/*.yml"))


@pytest.mark.parametrize("form", FORMS, ids=name_of)
def test_an_issue_form_has_what_github_asks_of_it(form: Path) -> None:
    content = yaml.safe_load(form.read_text("utf-8"))
    if form.name == "config.yml":
        assert content == {"blank_issues_enabled": True}
        return
    assert content["name"]
    assert content["description"]
    fields = [one for one in content["body"] if one["type"] != "markdown"]
    assert len({one["id"] for one in fields}) == len(fields)
    assert all(one["attributes"]["label"] for one in fields)


@pytest.mark.parametrize("root", [TEMPLATE, BAKED], ids=["template", "baked"])
def test_renovate_reads_its_configuration(root: Path) -> None:
    run("check-jsonschema", "--builtin-schema", "vendor.renovate", str(root / "renovate.json"))


def test_no_lock_file_is_kept_here() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--", "*uv.lock"], cwd=TEMPLATE, capture_output=True, encoding="utf-8"
    )
    assert listed.stdout == ""


SECRETS = re.compile(
    r"""-----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY-----  # with something behind it, unlike in a comment
        [\r\n]+[A-Za-z0-9+/=]
    |   \b(?:AKIA|ASIA)[0-9A-Z]{16}\b | \bgh[pousr]_[A-Za-z0-9]{36} | \bgithub_pat_\w{22,}
    |   \bxox[abprs]-[\w-]{10,} | \bglpat-[\w-]{20,} | \bsk-[A-Za-z0-9]{32,} | \bAIza[\w-]{35}
    |   ^[ ]*[A-Z_]*(?:PASSWORD|TOKEN|SECRET)[A-Z_]*(?:=|:[ ]+)["']?[^\s"'$#<{(\[.|]
    """,
    re.VERBOSE | re.MULTILINE,
)


def secrets_in(text: str) -> list[str]:
    return [match[0].strip() for match in SECRETS.finditer(text)]


def test_no_secret_is_kept_here() -> None:
    """Neither in the template nor, but for the random ones in .env, in what is baked from it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=TEMPLATE, capture_output=True, encoding="utf-8",
    )  # fmt: skip
    paths = [TEMPLATE / name for name in listed.stdout.split("\0") if name]
    assert paths
    found = {
        name_of(path): secrets
        for path in paths
        # Tests make up theirs, and this one has them as examples.
        if path.is_file() and "tests" not in path.parts and b"\0" not in path.read_bytes()
        if (secrets := secrets_in(path.read_text("utf-8")))
    }
    assert found == {}


@pytest.mark.parametrize(
    "text",
    [
        "GRAFANA_ADMIN_PASSWORD=admin",
        "      GF_SECURITY_ADMIN_PASSWORD: admin",
        'TOKEN = "x"\nAPI_TOKEN="a1b2"',
        f"-----BEGIN {'PRIVATE'} KEY-----\nMIIE",
        "key: AKIA" + "A" * 16,
    ],
)
def test_a_secret_would_be_found(text: str) -> None:
    assert secrets_in(text)


def images(*roots: Path) -> dict[str, str]:
    """The texts of the files that may name images, by the file's path."""
    files = [
        path for root in roots for name in ("*.yaml", "Dockerfile") for path in root.rglob(name)
    ]
    return {name_of(path): path.read_text("utf-8") for path in files}


def test_every_image_is_pinned_to_its_patch_release() -> None:
    named = {
        (name, image)
        for name, text in images(BAKED, TEMPLATE / ".devcontainer").items()
        for image in IMAGE.findall(text)
    }
    assert len(named) > 10
    loose = {(name, image) for name, image in named if not PINNED_IMAGE.fullmatch(image)}
    assert {image for _, image in loose} == FLOATING.keys(), loose
    pinned = {image for _, image in named - loose}
    twice = Counter(image.rpartition(":")[0] for image in pinned)
    assert max(twice.values()) == 1, twice  # in Compose and in Kubernetes


def test_renovate_finds_every_pinned_image() -> None:
    (manager,) = json.loads((BAKED / "renovate.json").read_text("utf-8"))["customManagers"]
    (pattern,) = manager["matchStrings"]
    annotated = re.compile(pattern.replace("(?<", "(?P<"))
    texts = images(BAKED).values()
    pinned = {
        match.groups()
        for text in texts
        for image in IMAGE.findall(text)
        if (match := PINNED_IMAGE.fullmatch(image))
    }
    assert pinned
    found = {
        (match["depName"], match["currentValue"])
        for text in texts
        for match in annotated.finditer(text)
    }
    assert pinned - found == set(), "no `# renovate: datasource=docker depName=…` line above these"


def test_renovate_finds_the_programs_that_ci_builds() -> None:
    managers = json.loads((TEMPLATE / "renovate.json").read_text("utf-8"))["customManagers"]
    (manager,) = (one for one in managers if one.get("datasourceTemplate") == "go")
    (pattern,) = manager["matchStrings"]
    read = [re.compile(one.strip("/")) for one in manager["managerFilePatterns"]]
    paths = [*TEMPLATE.glob(".github/**/*"), *TEMPLATE.glob(".ci/*")]
    texts = {name_of(path): path.read_text("utf-8") for path in paths if path.is_file()}
    installed = {name: text.count("go install ") for name, text in texts.items()}
    assert sum(installed.values()) > 1
    for name, count in installed.items():
        found = re.findall(pattern.replace("(?<", "(?P<"), texts[name])
        assert len(found) == count
        assert not count or any(one.search(name) for one in read)
        for module, version in found:
            assert f"go install {module}/cmd/" in texts[name]  # Go's proxy knows it by its root
            assert f"@{version}\n" in texts[name]


# Does as if it had every image: a program says where it was taken from.
DOCKER = """#!/bin/sh
case $1 in
    create) echo "container-of-$2" ;;
    inspect) echo /its/entrypoint ;;
    cp) echo "$3" > "$4" ;;
esac
"""


def test_programs_are_taken_out_of_the_pinned_images(tmp_path: Path) -> None:
    """All that the workflow requires but for what it installs or finds on the machine."""
    docker = tmp_path / "docker"
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    programs = tmp_path / "programs"
    subprocess.run(
        [TEMPLATE / ".github/fetch-programs.sh", programs],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        check=True,
    )
    fetched = {path.name: path.read_text().strip() for path in programs.iterdir()}
    pinned = {image for text in images(BAKED).values() for image in IMAGE.findall(text)}
    taken = {source.removeprefix("container-of-").rpartition(":")[0] for source in fetched.values()}
    assert taken <= pinned
    workflow = yaml.safe_load((TEMPLATE / ".github/workflows/ci.yml").read_text("utf-8"))
    (step,) = [
        step
        for step in workflow["jobs"]["test"]["steps"]
        if "REQUIRED_TOOLS" in step.get("env", {})
    ]
    required = set(step["env"]["REQUIRED_TOOLS"].split())
    assert required - fetched.keys() == {"actionlint", "amtool", "docker", "openssl"}
    assert fetched.keys() <= required


def test_a_required_tool_may_not_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "missing", {})
    with pytest.raises(pytest.skip.Exception):
        tools.tool("no-such-program", "this test")
    monkeypatch.setenv("REQUIRED_TOOLS", "another no-such-program")
    with pytest.raises(pytest.fail.Exception):
        tools.tool("no-such-program", "this test")
