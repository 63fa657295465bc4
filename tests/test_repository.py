"""What belongs to the repository itself and to every baked one: workflows, Renovate, pre-commit."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from matrix import TEMPLATE
from tools import tool

BAKED = TEMPLATE / "{{cookiecutter.project_slug}}"
WORKFLOWS = sorted(
    path for root in (TEMPLATE, BAKED) for path in (root / ".github/workflows").glob("*.yml")
)
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
PINNED_IMAGE = re.compile(r"^ *(?:image:|FROM) ([a-z][\w./-]*):(v?\d[\w.-]*)", re.MULTILINE)


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def name_of(path: Path) -> str:
    return str(path.relative_to(TEMPLATE))


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=name_of)
def test_workflow_is_sound(workflow: Path) -> None:
    run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", str(workflow))
    run(tool("actionlint", "workflows are sound"), str(workflow))


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=name_of)
def test_actions_are_pinned_by_commit(workflow: Path) -> None:
    used = re.findall(r"uses: (.*)", workflow.read_text("utf-8"))
    assert used
    assert [action for action in used if not PINNED.fullmatch(action)] == []


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=name_of)
def test_workflow_may_only_read(workflow: Path) -> None:
    text = workflow.read_text("utf-8")
    assert "\npermissions:\n  contents: read\n" in text
    assert "write" not in text


@pytest.mark.parametrize("root", [TEMPLATE, BAKED], ids=["template", "baked"])
def test_renovate_reads_its_configuration(root: Path) -> None:
    run("check-jsonschema", "--builtin-schema", "vendor.renovate", str(root / "renovate.json"))


def test_no_lock_file_is_kept_here() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--", "*uv.lock"], cwd=TEMPLATE, capture_output=True, encoding="utf-8"
    )
    assert listed.stdout == ""


def test_renovate_finds_every_pinned_image() -> None:
    (manager,) = json.loads((BAKED / "renovate.json").read_text("utf-8"))["customManagers"]
    (pattern,) = manager["matchStrings"]
    annotated = re.compile(pattern.replace("(?<", "(?P<"))
    files = [*BAKED.rglob("*.yaml"), *BAKED.rglob("Dockerfile")]
    texts = [path.read_text("utf-8") for path in files]
    pinned = {pin for text in texts for pin in PINNED_IMAGE.findall(text)}
    assert pinned
    found = {
        (match["depName"], match["currentValue"])
        for text in texts
        for match in annotated.finditer(text)
    }
    assert pinned - found == set(), "no `# renovate: datasource=docker depName=…` line above these"
