"""The library works with the oldest versions that it allows, and with a newer Python.

All other tests take the newest versions, and the Python that runs them.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from matrix import TEMPLATE

LIBRARY = TEMPLATE / "{{cookiecutter.project_slug}}/libs/faststream-otel"
PROJECT = tomllib.loads((LIBRARY / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
TEST_TOOLS = [
    *("cryptography", "hypothesis", "pytest", "pytest-asyncio", "pytest-xdist", "python-multipart"),
    *("opentelemetry-distro", "opentelemetry-instrumentation-httpx", "pyyaml", "trustme"),
    "opentelemetry-instrumentation-logging",
]
REQUIREMENT = re.compile(r"([a-z0-9-]+)(?:\[[^]]*\])?>=([0-9.]+(?:b[0-9]+)?)")


def test_its_unit_tests_pass_with_the_oldest_versions(tmp_path: Path) -> None:
    """Where an oldest version can't be installed beside the others, its bound is wrong."""
    oldest = tmp_path / "oldest.txt"
    oldest.write_text("\n".join(f"{name}=={least}" for name, least in lower_bounds()))
    run_unit_tests(sys.executable, tmp_path, "--constraint", oldest)


def test_its_unit_tests_pass_with_a_newer_python(tmp_path: Path) -> None:
    python = newer_python()
    if python is None:
        pytest.skip("no newer Python is installed")
    run_unit_tests(python, tmp_path)


def run_unit_tests(python: str, folder: Path, *constraints: str | Path) -> None:
    environment = folder / "environment"
    own = environment / "bin/python"

    def run(*command: str | Path) -> None:
        done = subprocess.run(
            command,
            cwd=TEMPLATE,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        assert done.returncode == 0, done.stdout

    run("uv", "venv", "--quiet", "--python", python, environment)
    install = ("uv", "pip", "install", "--quiet", "--python", own, *constraints)
    run(*install, "--editable", f"{LIBRARY}[{','.join(EXTRAS)}]", *TEST_TOOLS)
    # Not those of the pytest plugin, each of which starts pytest anew.
    quick = ("--hypothesis-profile", "few", "--ignore", "tests/library/unit/test_testing.py")
    run(own, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", *quick, "tests/library/unit")


def newer_python() -> str | None:
    """The newest one that is installed, if it is newer than this one."""
    for minor in range(14, sys.version_info.minor, -1):
        found = shutil.which(f"python3.{minor}")
        # A shim of pyenv fails for a version that is not selected.
        if found and subprocess.run([found, "-c", ""], capture_output=True).returncode == 0:
            return found
    return None


def lower_bounds() -> set[tuple[str, str]]:
    """The version that each dependency has at least, those of the extras too."""
    extras = (one for requirements in EXTRAS.values() for one in requirements)
    bounds = set()
    for requirement in (*PROJECT["dependencies"], *extras):
        if not requirement.startswith("faststream-otel["):  # an extra that takes in another
            found = REQUIREMENT.match(requirement)
            assert found, f"{requirement} has no lower bound"
            bounds.add((found[1], found[2]))
    return bounds
