"""A command of the library where the services run: beside a local run, else in a container."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import NoReturn

from .local import running_environment
from .project import Project, UserError

TOOLS = "tools"
"""The service of compose.yaml that is there for this."""
COMPOSE = ["docker", "compose", "--progress", "quiet"]


def execute(project: Project, arguments: Sequence[str]) -> NoReturn:
    """Become `faststream-otel <arguments>`: signals and the exit code are that command's.

    Raises:
        UserError: The services run neither here nor in Docker.
    """
    environment = running_environment(project)
    if environment is None:
        _check_stack(project)
        command = [*COMPOSE, "run", "--rm", "--no-deps", TOOLS, *arguments]
    else:
        options = ["--app", project.package]
        command = [sys.executable, "-m", "faststream_otel.cli", *options, *arguments]
    os.chdir(project.root)
    os.execvpe(command[0], command, os.environ | (environment or {}))


def _check_stack(project: Project) -> None:
    nothing = "Nothing runs here: start it with `make up`, or without Docker with `make dev`."
    if shutil.which(COMPOSE[0]) is None:
        raise UserError(nothing)
    running = subprocess.run(
        [*COMPOSE, "ps", "--quiet", "--status", "running"],
        cwd=project.root,
        capture_output=True,
        text=True,
        check=False,
    )
    if running.returncode:
        raise UserError(f"docker compose does not answer: {running.stderr.strip()}")
    if not running.stdout.strip():
        raise UserError(nothing)
