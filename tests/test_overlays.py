"""An answer changes only the files of its option; overlays do not repeat each other.

Boards do: Grafana's JSON cannot include files, so each overlay has complete boards. `make
dashboards` writes them from code that they share.
"""

from itertools import combinations
from pathlib import Path

import pytest
from bakery import Bakery
from matrix import OPTIONS, TEMPLATE

OVERLAYS = TEMPLATE / "{{cookiecutter.project_slug}}" / "overlays"

RENDERED = {
    "broker": {
        ".devcontainer/devcontainer.json",
        ".env.example",
        "README.md",
        "compose.yaml",
        "docs/faststream-tracing.md",
        "docs/production.md",
        "docs/runbook.md",
        "docs/security.md",
        "docs/updating.md",
        "pyproject.toml",
    },
    "trace_backend": {
        ".devcontainer/devcontainer.json",
        ".env.example",
        "observability/.env.example",
        "observability/compose.yaml",
        "README.md",
        "SECURITY.md",
        "docs/faults.md",
        "docs/production.md",
    },
    "python_version": {"Dockerfile", ".devcontainer/devcontainer.json"},
    "deployment": {
        "README.md",
        "docs/dead-letters.md",
        "docs/removing-the-example.md",
        "docs/services.md",
    },
    "license": {"pyproject.toml"},
}
"""Files of every project that name the answer to an option."""

OTHER_ANSWERS = [(option, value) for option, values in OPTIONS.items() for value in values[1:]]

LONGEST_REPETITION = 5  # lines
GENERATED = ".json"  # boards


def contents(project: Path) -> dict[str, bytes]:
    """Every file of a fresh bake but for those with random passwords."""
    return {
        str(path.relative_to(project)): path.read_bytes()
        for path in project.rglob("*")
        if path.is_file() and path.name != ".env"
    }


def files_of(option: str, value: str) -> set[str]:
    """Its overlay's, with those of the overlays in it that belong to the default answers."""
    folder = OVERLAYS / option / value
    folders = [folder, *(folder / "overlays" / one / OPTIONS[one][0] for one in OPTIONS)]
    package = "{{cookiecutter.package_name}}"
    return {
        str(path.relative_to(root)).replace(package, "order_flow")
        for root in folders
        for path in root.rglob("*")
        if path.is_file() and (root != folder or folder / "overlays" not in path.parents)
    }


@pytest.fixture(scope="module")
def default_contents(bakery: Bakery, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return contents(bakery.bake({}, tmp_path_factory.mktemp("default")))


@pytest.mark.parametrize(("option", "value"), OTHER_ANSWERS)
def test_another_answer_changes_only_its_files(
    option: str, value: str, default_contents: dict[str, bytes], bakery: Bakery, tmp_path: Path
) -> None:
    other = contents(bakery.bake({option: value}, tmp_path))
    changed = {
        name
        for name in default_contents.keys() | other.keys()
        if default_contents.get(name) != other.get(name)
    }
    its_own = files_of(option, OPTIONS[option][0]) | files_of(option, value) | RENDERED[option]
    assert changed
    assert changed - its_own == set()


@pytest.mark.parametrize("value", OPTIONS["trace_backend"])
def test_code_and_tests_know_no_trace_backend(value: str) -> None:
    assert not [
        name for name in files_of("trace_backend", value) if name.startswith(("src/", "tests/"))
    ]


def blocks(value: Path) -> dict[tuple[str, ...], str]:
    """Every run of so many lines in an overlay's files; empty lines and indents do not count."""
    found = {}
    for path in sorted(value.rglob("*")):
        if not path.is_file() or path.suffix == GENERATED or path.name == "LICENSE":
            continue
        lines = [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
        for start in range(len(lines) - LONGEST_REPETITION):
            block = tuple(lines[start : start + LONGEST_REPETITION + 1])
            found[block] = f"{path.relative_to(value)}: {block[0]}"
    return found


@pytest.mark.parametrize("option", sorted(path.name for path in OVERLAYS.iterdir()))
def test_no_two_overlays_repeat_a_block(option: str) -> None:
    values = {path.name: blocks(path) for path in sorted((OVERLAYS / option).iterdir())}
    repeated = [
        f"{one} and {other}, {values[one][block]}"
        for one, other in combinations(values, 2)
        for block in values[one].keys() & values[other].keys()
    ]
    assert repeated == []
