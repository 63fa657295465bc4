"""Runs a command against the running services: of a local run, or in a container."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import NoReturn

from .local import running_environment
from .project import Project, UserError

TOOLS = "tools"
"""The service in compose.yaml for such commands."""
COMPOSE = ["docker", "compose", "--progress", "quiet"]


def execute(project: Project, arguments: Sequence[str]) -> NoReturn:
    """Replace this process by `faststream-otel <arguments>`, which gets the signals.

    Raises:
        UserError: No services are running, neither locally nor in Docker.
    """
    environment = running_environment(project)
    if environment is None:
        _check_stack(project)
        command = [*COMPOSE, "run", "--rm", "--no-deps", TOOLS, *arguments]
    else:
        options = ["--app", project.package]
        command = [sys.executable, "-m", "faststream_otel.cli", *options, *arguments]
    os.chdir(project.root)
    # Those of the shell are for a broker other than this run's.
    others = "BROKER_" if environment else ()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    os.execvpe(command[0], command, inherited | (environment or {}))


def _check_stack(project: Project) -> None:
    nothing = "No services are running: run `make up`, or without Docker `make dev`."
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
        raise UserError(f"docker compose failed: {running.stderr.strip()}")
    if not running.stdout.strip():
        raise UserError(nothing)
