"""Good answers arrive unchanged, bad ones are refused before anything is written."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from bakery import Bakery
from matrix import OPTIONS, TEMPLATE, Answers
from tools import docker_compose

HOSTILE = {
    "project_name": """O'Brien's "Order" \\ Flöw 🚀 $(touch x) `touch x` # a: %s {x} <b>""",
    "description": """It's "quoted" \\n \\ #1: 100 % of {x}, %s, $(touch x) 注文 🛒 *now* [a](b)""",
    "author": """Åsa "Ace" O'Neill \\ {x} $(touch x) # %d: 山田 🦊 <asa@example.org>""",
    "project_slug": "hostile-names",
}

REFUSED = [
    ("package_name", "class", "keyword"),
    ("package_name", "json", "standard library"),
    ("package_name", "telnetlib", "standard library"),
    ("package_name", "faststream", "depends on"),
    ("package_name", "opentelemetry", "depends on"),
    ("package_name", "prometheus_client", "depends on"),
    ("package_name", "fastapi", "depends on"),
    ("package_name", "starlette", "depends on"),
    ("package_name", "order-flow", "not a package name"),
    ("package_name", "2fast", "not a package name"),
    ("package_name", "Order", "not a package name"),
    ("package_name", "", "not a package name"),
    ("package_name", "a.b", "not a package name"),
    ("package_name", "bestellüng", "not a package name"),
    ("package_name", "o" * 41, "longer than 40"),
    ("package_name", "example", "another folder"),
    ("package_name", "libs", "another folder"),
    ("package_name", "tests", "another folder"),
    ("package_name", "src", "another folder"),
    ("project_slug", "Order", "lower-case"),
    ("project_slug", "../order", "lower-case"),
    ("project_slug", "order flow", "lower-case"),
    ("project_slug", "-order", "lower-case"),
    ("project_slug", "order-", "lower-case"),
    ("project_slug", "order___flow", "lower-case"),
    ("project_slug", "order.flow", "lower-case"),
    ("project_slug", "o" * 41, "longer than 40"),
    ("project_slug", "faststream", "depends on"),
    ("project_slug", "faststream-otel", "depends on"),
    ("package_name", "faststream_otel", "depends on"),
    ("project_name", "Order\nFlow", "control character"),
    ("project_name", " ", "empty"),
    ("description", "a\tb", "control character"),
    ("description", "a \x1b[31mred", "control character"),
    ("description", "first\u2028second", "control character"),
    ("author", "", "empty"),
    ("author", "Ada \x7f", "control character"),
    ("project_name", "{{ 7 * 7 }}", "template mark"),
    ("description", "{# a comment #} that vanishes", "template mark"),
    ("author", "{% raw %}{{ x }}{% endraw %}", "template mark"),
]


# Prints every name that is imported, or installed, from what the project depends on.
INSTALLED = """
import re
from importlib.metadata import distributions
for one in distributions():
    tops = {str(file).split("/")[0].removesuffix(".py") for file in one.files or ()}
    for name in {re.sub("[-.]+", "_", one.metadata["Name"].lower()), *tops}:
        print(name)
"""


@pytest.fixture(scope="module")
def hostile(bakery: Bakery) -> Path:
    return bakery.bake(HOSTILE, bakery.home / "a path with spaces")


def test_hostile_texts_arrive_intact_in_the_package(hostile: Path) -> None:
    metadata = tomllib.loads((hostile / "pyproject.toml").read_text("utf-8"))["project"]
    assert metadata["description"] == HOSTILE["description"]
    assert metadata["authors"] == [{"name": HOSTILE["author"]}]


def test_hostile_texts_arrive_intact_in_the_readme(hostile: Path) -> None:
    readme = (hostile / "README.md").read_text("utf-8")
    as_read = re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", readme)  # what CommonMark shows
    assert as_read.startswith(f"# {HOSTILE['project_name']}\n")
    assert HOSTILE["description"] in as_read


def test_hostile_texts_arrive_intact_in_the_licence(hostile: Path) -> None:
    assert HOSTILE["author"] in (hostile / "LICENSE").read_text("utf-8")


def test_hostile_texts_arrive_intact_in_compose(hostile: Path, bakery: Bakery) -> None:
    compose = yaml.safe_load((hostile / "compose.yaml").read_text("utf-8"))
    assert compose["name"] == HOSTILE["project_slug"]
    bakery.run(hostile, *docker_compose("Compose reads hostile names"), "config", "--quiet")


def test_hostile_texts_run_nothing(hostile: Path, bakery: Bakery) -> None:
    bakery.run(hostile, "make")
    assert not [*hostile.rglob("x"), *bakery.home.glob("x")]


def test_hostile_texts_break_neither_lint_nor_types(hostile: Path, bakery: Bakery) -> None:
    bakery.run(hostile, "make", "lint")


def test_hostile_texts_leave_code_that_compiles(hostile: Path, bakery: Bakery) -> None:
    bakery.run(hostile, "uv", "run", "python", "-m", "compileall", "-q", "src", "tests")


@pytest.mark.parametrize("package", ["b", "z" * 40])
def test_the_code_keeps_its_format_whatever_the_package_is_called(
    package: str, bakery: Bakery, tmp_path: Path
) -> None:
    """The name is part of lines that import it: they must neither wrap nor change their order."""
    project = bakery.bake({"package_name": package}, tmp_path)
    bakery.run(project, "uv", "run", "ruff", "format", "--check", ".")
    bakery.run(project, "uv", "run", "ruff", "check", ".")


@pytest.mark.parametrize(
    ("name", "slug", "package"),
    [
        ("Order Flow", "order-flow", "order_flow"),
        ("3D Printing", "3d-printing", "app_3d_printing"),
        ("🚀", "order-flow", "order_flow"),
        ("Größe & Maß", "grosse-mass", "grosse_mass"),
    ],
)
def test_folder_and_package_follow_from_the_name(
    name: str, slug: str, package: str, bakery: Bakery, tmp_path: Path
) -> None:
    project = bakery.bake({"project_name": name}, tmp_path)
    assert project.name == slug
    assert (project / "src" / package).is_dir()


@pytest.mark.parametrize(("question", "answer", "reason"), REFUSED)
def test_bad_answer_is_refused_before_anything_is_written(
    question: str, answer: str, reason: str, bakery: Bakery, tmp_path: Path
) -> None:
    into = tmp_path / "into"
    into.mkdir()
    done = bakery.cookiecutter(good_but({question: answer}), into)
    assert done.returncode != 0
    first_line = done.stdout.splitlines()[0]
    assert first_line.startswith(question)
    assert reason in first_line
    assert "A good one: " in first_line
    assert list(tmp_path.rglob("*")) == [into]


def test_the_names_of_libraries_are_those_that_bakes_install(
    bakery: Bakery, tmp_path: Path
) -> None:
    """A project with such a name can't be installed beside the library, or hides its modules."""
    printed = ""
    for broker in OPTIONS["broker"]:
        printed += subprocess.run(
            ["uv", "run", "--exact", "--quiet", "python", "-c", INSTALLED],
            cwd=bakery.bake({"broker": broker}, tmp_path / broker), env=bakery.environment(),
            stdout=subprocess.PIPE, check=True, encoding="utf-8",
        ).stdout  # fmt: skip
    names = {name for name in printed.split() if re.fullmatch("[a-z][a-z0-9_]*", name)}
    hook = (TEMPLATE / "hooks/pre_gen_project.py").read_text("utf-8")
    (listed,) = re.findall('LIBRARIES = """(.*?)"""', hook, re.DOTALL)
    assert names - {"order_flow"} == set(listed.split())


def test_a_bad_slug_is_reported_once(bakery: Bakery, tmp_path: Path) -> None:
    done = bakery.cookiecutter({"project_slug": "order.flow"}, tmp_path)
    assert done.returncode != 0
    assert done.stdout.count("A good one: ") == 1, done.stdout


def test_the_prompts_are_shown(bakery: Bakery, tmp_path: Path) -> None:
    done = bakery.cookiecutter({}, tmp_path, prompt=True)
    assert done.returncode == 0, done.stdout
    for question in ("Project name", "Message broker", "Apache Kafka", "Licence"):
        assert question in " ".join(done.stdout.split())
    assert (tmp_path / "order-flow" / "compose.yaml").exists()


def good_but(bad: Answers) -> Answers:
    """Defaults that do not follow from the answer under test."""
    return {"project_slug": "order-flow", "package_name": "order_flow"} | bad
