"""What is baked works with the oldest versions that it allows; all other tests take the newest."""

import re
import subprocess
import tomllib
from pathlib import Path

from bakery import Bakery

OLDEST = ("uv", "run", "--quiet", "--resolution", "lowest-direct")
INSTALLED = """
from importlib.metadata import distributions
for one in distributions():
    print(one.name.lower().replace("_", "-"), one.version)
"""
REQUIREMENT = re.compile(r"([a-z0-9-]+)(?:\[[^]]*\])?>=([0-9.]+)")


def test_its_unit_tests_pass_with_the_oldest_versions(bakery: Bakery, tmp_path: Path) -> None:
    project = bakery.bake({}, tmp_path)
    oldest = {"UV_PROJECT_ENVIRONMENT": str(tmp_path / "oldest")}  # the others' stays as it is

    def run(*command: str) -> str:
        done = subprocess.run(
            [*OLDEST, *command],
            cwd=project,
            env=bakery.environment() | oldest,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    installed = dict(line.split() for line in run("python", "-c", INSTALLED).splitlines())
    for name, least in lower_bounds(project).items():
        assert re.fullmatch(rf"{re.escape(least)}(\.0)*", installed[name]), (
            f"{name} {installed[name]} is there, and pyproject.toml allows {least}: raise the bound"
            " to what can be installed"
        )
    run("pytest", "--quiet", "tests/unit")


def lower_bounds(project: Path) -> dict[str, str]:
    """Those of what the services need; the tools of its developers are of no concern here."""
    metadata = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]
    bounds = {}
    for requirement in metadata["dependencies"]:
        found = REQUIREMENT.match(requirement)
        assert found, f"{requirement} has no lower bound"
        bounds[found[1]] = found[2]
    return bounds
