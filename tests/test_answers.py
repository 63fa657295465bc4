"""Good answers arrive unchanged, bad ones are refused before anything is written."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from bakery import COOKIECUTTER, Bakery
from matrix import OPTIONS, Answers
from repository import commit, copy_of_the_template
from tools import docker_compose

from check_answers import LIBRARIES

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
    ("project_name", "{{ 7 * 7 }}", "template syntax"),
    ("description", "{# a comment #} that vanishes", "template syntax"),
    ("author", "{% raw %}{{ x }}{% endraw %}", "template syntax"),
    ("author", "{% never closed", "template syntax"),
    ("trace_backend", "zipkn", "'zipkin'. A good one: zipkin"),
    ("license", "mit", "'MIT', 'Apache-2.0', 'BSD-3-Clause', 'none'. A good one: MIT"),
    ("python_version", "3.10", "A good one: 3.13"),
    ("backend", "jaeger", "not a question"),
    ("_template_version", "9", "not a question"),
]
PROGRAMS = {
    "oldest": ("uvx", "--quiet", "--from", "cookiecutter==2.6.0", "cookiecutter"),
    "newest": COOKIECUTTER,
}


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
    assert "Traceback" not in done.stdout
    assert list(tmp_path.rglob("*")) == [into]


@pytest.mark.parametrize("version", PROGRAMS)
@pytest.mark.parametrize(("question", "answer"), [("license", "mit"), ("package_name", "json")])
def test_each_version_of_cookiecutter_gives_the_reason_alone(
    question: str, answer: str, version: str, bakery: Bakery, tmp_path: Path
) -> None:
    done = bakery.cookiecutter({question: answer}, tmp_path / "new", program=PROGRAMS[version])
    assert done.returncode == 1
    reason, *rest = done.stdout.splitlines()
    assert reason.startswith(f"{question} '{answer}'")
    assert rest in ([], ["Pre-Prompt Hook script failed"])
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("version", PROGRAMS)
def test_an_answer_typed_at_the_prompt_is_refused_too(
    version: str, bakery: Bakery, tmp_path: Path
) -> None:
    done = bakery.cookiecutter(
        {}, tmp_path / "new", program=PROGRAMS[version], prompt=True, typed="Order\n../order\n"
    )
    assert done.returncode == 1
    assert "project_slug '../order' cannot name a folder" in done.stdout
    assert "Traceback" not in done.stdout
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(("question", "answer", "reason"), [
    ("license", "mit", "A good one: MIT"),
    ("python_version", 3.13, "3.13 is not one of the texts '3.13'"),  # a number in YAML
    ("author", "{% x %}", "template syntax"),
])  # fmt: skip
def test_a_bad_default_of_the_user_is_refused(
    question: str, answer: object, reason: str, bakery: Bakery, tmp_path: Path
) -> None:
    """Cookiecutter would drop it, and every later one, with a warning."""
    config = tmp_path / "config.yaml"
    context = {question: answer, "broker": "nats", "a question of another template": "x"}
    config.write_text(yaml.safe_dump({"default_context": context}, sort_keys=False))
    into = tmp_path / "into"
    done = bakery.cookiecutter({}, into, "--config-file", str(config))
    assert done.returncode == 1
    first_line = done.stdout.splitlines()[0]
    assert first_line.startswith(question)
    assert reason in first_line
    assert "default_context" in first_line
    assert not into.exists()
    ignored = bakery.cookiecutter({}, into, "--default-config")
    assert ignored.returncode == 0, ignored.stdout


def test_a_bad_default_is_refused_by_a_relative_path_too(bakery: Bakery, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"default_context": {"license": "mit"}}))
    into = tmp_path / "into"
    done = bakery.cookiecutter({}, into, "--config-file", os.path.relpath(config, bakery.home))
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("license 'mit' is not one of")  # after a warning
    assert "Traceback" not in done.stdout
    assert not into.exists()


@pytest.mark.parametrize("relative", [False, True], ids=["absolute", "relative"])
def test_good_defaults_of_the_user_are_taken(
    relative: bool, bakery: Bakery, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"default_context": {"theirs": "x", "broker": "nats"}}))
    file = os.path.relpath(config, bakery.home) if relative else str(config)
    project = bakery.bake({}, tmp_path / "into", "--config-file", file)
    assert "  nats:" in (project / "compose.broker.yaml").read_text("utf-8")


@pytest.mark.parametrize(("question", "answer", "reason"), [
    ("project_slug", "order.flow", "lower-case"),
    ("author", "{% never closed", "template syntax"),
    ("backend", "jaeger", "not a question"),
    ("license", "mit", "choices are ['MIT'"),  # by cookiecutter itself: there is no pre_prompt
])  # fmt: skip
def test_cruft_refuses_too(
    question: str, answer: str, reason: str, bakery: Bakery, tmp_path: Path
) -> None:
    template = copy_of_the_template(tmp_path / "template")
    into = tmp_path / "into"
    into.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "cruft", "create", str(template), "--no-input",
         "--output-dir", str(into), "--extra-context", json.dumps({question: answer})],
        env=bakery.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 1
    assert reason in "".join(done.stdout.splitlines())
    if question != "license":
        assert done.stdout.startswith(question)
    assert [*into.iterdir()] == []


def test_an_update_refuses_no_answer_that_was_good_once(bakery: Bakery, tmp_path: Path) -> None:
    """Else a project with the name of a later dependency could never be updated."""
    template = copy_of_the_template(tmp_path / "template")
    questions = template / "cookiecutter.json"
    now = questions.read_text("utf-8")
    before = {name: value for name, value in json.loads(now).items() if name != "_extensions"}
    questions.write_text(json.dumps(before), "utf-8")
    commit(template, "before")

    def cruft(folder: Path, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "cruft", *arguments], cwd=folder, env=bakery.environment(),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
        )  # fmt: skip
        assert done.returncode == 0, done.stdout

    answers = json.dumps({"package_name": "colorama"})
    cruft(tmp_path, "create", str(template), "--no-input", "--extra-context", answers)
    project = tmp_path / "order-flow"
    commit(project, "baked")
    questions.write_text(now, "utf-8")
    (template / "{{cookiecutter.project_slug}}/later.txt").touch()
    commit(template, "later")
    cruft(project, "update", "--skip-apply-ask")
    assert (project / "later.txt").exists()


def test_the_names_of_libraries_are_those_in_the_locks_of_bakes(
    bakery: Bakery, tmp_path: Path
) -> None:
    """A project with such a name can't be installed beside the library, or hides its modules."""
    names = set()
    for broker in OPTIONS["broker"]:
        project = bakery.bake({"broker": broker}, tmp_path / broker)
        printed = subprocess.run(
            ["uv", "run", "--exact", "--quiet", "python", "-c", INSTALLED],
            cwd=project, env=bakery.environment(),
            stdout=subprocess.PIPE, check=True, encoding="utf-8",
        ).stdout  # fmt: skip
        # Also what only other platforms and versions of Python install.
        locked = tomllib.loads((project / "uv.lock").read_text("utf-8"))["package"]
        names |= {*printed.split(), *(re.sub("[-.]", "_", one["name"]) for one in locked)}
    names = {name for name in names if re.fullmatch("[a-z][a-z0-9_]*", name)}
    assert names - {"order_flow"} == set(LIBRARIES.split())


def test_a_bad_slug_is_reported_once(bakery: Bakery, tmp_path: Path) -> None:
    done = bakery.cookiecutter({"project_slug": "order.flow"}, tmp_path)
    assert done.returncode != 0
    assert done.stdout.count("A good one: ") == 1, done.stdout


def test_the_prompts_are_shown(bakery: Bakery, tmp_path: Path) -> None:
    done = bakery.cookiecutter({}, tmp_path, prompt=True)
    assert done.returncode == 0, done.stdout
    for question in ("Project name", "Message broker", "Kafka: keeps", "Licence"):
        assert question in " ".join(done.stdout.split())
    assert (tmp_path / "order-flow" / "compose.yaml").exists()


def good_but(bad: Answers) -> Answers:
    """Defaults that do not follow from the answer under test."""
    return {"project_slug": "order-flow", "package_name": "order_flow"} | bad
