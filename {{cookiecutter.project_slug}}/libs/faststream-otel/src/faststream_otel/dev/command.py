"""`python -m devtools.command <command> …`: a command of the package, where the services run.

While `make dev` runs it is a process here, otherwise a container beside those of `make up`.
"""

import os
import shutil
import subprocess
import sys

from . import local
from .project import ROOT, UserError, package

TOOLS = "tools"
"""The service of compose.yaml that is there for this."""
COMPOSE = ["docker", "compose", "--progress", "quiet"]


def main(arguments: list[str] | None = None) -> int:
    """Run the command that the arguments are, and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        environment = local.environment()
        if environment is None:
            _need_stack()
            command = [*COMPOSE, "run", "--rm", "--no-deps", TOOLS, *arguments]
        else:
            command = [sys.executable, "-m", package(), *arguments]
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ | (environment or {}))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # the terminal sends it to both: it ends, and says how
            continue


def _need_stack() -> None:
    nothing = "Nothing runs here: start it with `make up`, or without Docker with `make dev`."
    if shutil.which(COMPOSE[0]) is None:
        raise UserError(nothing)
    running = subprocess.run(
        [*COMPOSE, "ps", "--quiet", "--status", "running"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if running.returncode:
        raise UserError(f"docker compose does not answer: {running.stderr.strip()}")
    if not running.stdout.strip():
        raise UserError(nothing)


if __name__ == "__main__":
    sys.exit(main())
