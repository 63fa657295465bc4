"""Programs that a check wants and a machine may lack: what is missing is said at the end.

Those that REQUIRED_TOOLS names, with blanks between them, may not be missing.
"""

import os
import shutil
import subprocess

import pytest

missing: dict[str, list[str]] = {}


def tool(name: str, check: str) -> str:
    """Return the program's path, or skip the check and remember which one it was.

    Fails the check if the program is required.
    """
    if path := shutil.which(name):
        return path
    if name in os.environ.get("REQUIRED_TOOLS", "").split():
        pytest.fail(f"{name} is not here, and REQUIRED_TOOLS names it")
    missing.setdefault(name, []).append(check)
    pytest.skip(f"{name} is not here")


def docker_compose(check: str) -> list[str]:
    """Return the command of Compose; the checks that call it need no running engine."""
    docker = tool("docker", check)
    if subprocess.run([docker, "compose", "version"], capture_output=True).returncode:
        missing.setdefault("docker compose", []).append(check)
        pytest.skip("docker has no compose")
    return [docker, "compose"]
