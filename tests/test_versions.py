"""The library works with the oldest versions that it allows; all other tests take the newest."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

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
    python, oldest = tmp_path / "oldest/bin/python", tmp_path / "oldest.txt"

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

    run("uv", "venv", "--quiet", "--python", sys.executable, tmp_path / "oldest")
    oldest.write_text("\n".join(f"{name}=={least}" for name, least in lower_bounds()))
    install = ("uv", "pip", "install", "--quiet", "--python", python, "--constraint", oldest)
    run(*install, "--editable", f"{LIBRARY}[{','.join(EXTRAS)}]", *TEST_TOOLS)
    pytest = (python, "-m", "pytest", "--quiet", "-p", "no:cacheprovider")
    # Not those of the pytest plugin, each of which starts pytest anew.
    quick = ("--hypothesis-profile", "few", "--ignore", "tests/library/unit/test_testing.py")
    run(*pytest, *quick, "tests/library/unit")


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
