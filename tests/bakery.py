"""Bakes the template like a user, and runs commands of baked projects."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from matrix import QUESTIONS, Answers
from repository import copy_files

COOKIECUTTER = (sys.executable, "-m", "cookiecutter")


class BakingError(Exception):
    """A failed command, with its output."""


@dataclass(frozen=True)
class Bakery:
    """The folder for bakes, with one environment and caches that all of them share."""

    home: Path

    @cached_property
    def template(self) -> Path:
        """The template without what git ignores: cookiecutter copies all of it for each bake."""
        copy_files(self.home / "faststream-otel")
        return self.home / "faststream-otel"

    def cookiecutter(
        self,
        answers: Answers,
        into: Path,
        *options: str,
        program: tuple[str, ...] = COOKIECUTTER,
        env: dict[str, str] | None = None,
        prompt: bool = False,
        typed: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Call cookiecutter's command line; standard output and error come interleaved.

        With `prompt` it asks, and gets what is `typed`, then Enter for each question.
        """
        command = [
            *program,
            *([] if prompt else ["--no-input"]),
            *("--output-dir", str(into)),
            *options,
            str(self.template),
            *(f"{question}={answer}" for question, answer in answers.items()),
        ]
        return subprocess.run(
            command,
            cwd=self.home,
            env=self.environment() | (env or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            input=typed + "\n" * len(QUESTIONS),
            encoding="utf-8",
        )

    def bake(self, answers: Answers, into: Path, *options: str) -> Path:
        """Bake, and return the project's folder, the only new one in `into`."""
        before = set(into.iterdir()) if into.exists() else set()
        done = self.cookiecutter(answers, into, *options)
        if done.returncode:
            raise BakingError(done.stdout)
        (project,) = set(into.iterdir()) - before
        return project

    def baked_once(self, answers: Answers, into: Path) -> Path:
        """Like `bake`, but only once: pytest asks again for each test file."""
        if not into.exists():
            return self.bake(answers, into)
        (project,) = into.iterdir()
        return project

    def run(self, project: Path, *command: str) -> None:
        """Run a command in the baked project; a failure has its output."""
        done = subprocess.run(
            command,
            cwd=project,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}"

    def make_dev(self, project: Path, env: dict[str, str]) -> str:
        """Run `make dev` until everything is up, then stop it; return its output."""
        with subprocess.Popen(
            ["make", "dev"],
            cwd=project,
            env=self.environment() | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            start_new_session=True,
        ) as running:
            assert running.stdout
            said = ""
            try:
                for line in running.stdout:
                    said += line
                    if "Ctrl-C" in line:
                        break
            finally:
                os.killpg(running.pid, signal.SIGTERM)
            return said + running.stdout.read()

    def environment(self) -> dict[str, str]:
        """The user's environment, without settings of cookiecutter, uv, OpenTelemetry and make.

        And without those of the library's tests, which may share this process.
        """
        kept = {
            name: value
            for name, value in os.environ.items()
            if name not in {"ARGS", "PYTHONPATH", "RETRY_BACKOFF_SECONDS", "VIRTUAL_ENV"}
            and not name.startswith(("UV_PYTHON", "OTEL_", "MAKE"))
        }
        config = self.home / "cookiecutter.yaml"
        config.write_text(
            f"cookiecutters_dir: '{self.home}/templates'\nreplay_dir: '{self.home}/replay'\n"
        )
        # One environment at one path: mypy's and ruff's caches stay good from bake to bake.
        return kept | {
            "COOKIECUTTER_CONFIG": str(config),
            "UV_PROJECT_ENVIRONMENT": str(self.home / "venv"),
            "UV_PYTHON": sys.executable,
            "MYPY_CACHE_DIR": str(self.home / "mypy"),
            "RUFF_CACHE_DIR": str(self.home / "ruff"),
        }
