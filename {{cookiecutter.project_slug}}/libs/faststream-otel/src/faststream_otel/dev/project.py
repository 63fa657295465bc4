"""The project that the commands work on: its folder, package, services and ports."""

import os
import re
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

GOOD_PORT = re.compile(r"(\d+)(-\d+)?")


class UserError(Exception):
    """An error that the user can fix. The text says how; it is shown without a traceback."""


@dataclass(frozen=True)
class Project:
    """A project with the template's layout.

    Attributes:
        root: The folder with pyproject.toml.
        package: Its Python package, with a subpackage `services`.
    """

    root: Path
    package: str

    @classmethod
    def here(cls, package: str | None = None) -> "Project":
        """Find the project that the current directory is in.

        Args:
            package: Default: the variable FASTSTREAM_OTEL_APP, else the only one with services.

        Raises:
            UserError: There is no project here, or it has no such package.
        """
        current = Path.cwd()
        folders = (current, *current.parents)
        root = next((folder for folder in folders if (folder / "pyproject.toml").is_file()), None)
        if root is None:
            raise UserError(f"There is no pyproject.toml in {current} or a folder above it.")
        packages = sorted(path.parent.name for path in root.glob("src/*/services"))
        only = packages[0] if len(packages) == 1 else ""
        package = package or os.environ.get("FASTSTREAM_OTEL_APP") or only
        if package not in packages:
            raise UserError(
                f"--app or FASTSTREAM_OTEL_APP is {package or 'not set'}: set it to a package with"
                f" services in {root / 'src'} (there: {', '.join(packages) or 'none'})."
            )
        return cls(root, package)

    @property
    def source(self) -> Path:
        return self.root / "src" / self.package

    @property
    def services(self) -> list[str]:
        """The names of the services, the entrance first.

        Raises:
            UserError: There is no service, or the entrance is not one of them.
        """
        modules = {path.stem for path in (self.source / "services").glob("[!_]*.py")}
        names = sorted(module.replace("_", "-") for module in modules)
        if not names:
            raise UserError(f"There is no service in {self.source / 'services'}.")
        if self.entrance not in {"", *names}:
            raise UserError(
                f"The service {self.entrance} does not exist: set `entrance` in pyproject.toml,"
                f" [tool.faststream-otel], to one of {', '.join(names)}."
            )
        return sorted(names, key=lambda name: name != self.entrance)

    @property
    def entrance(self) -> str:
        """The service that receives work from outside; empty if none does over HTTP."""
        return str(self._settings.get("entrance", ""))

    @property
    def entrance_port(self) -> str:
        """The variable for the entrance's port."""
        return f"{(self.entrance or self.services[0]).upper().replace('-', '_')}_PORT"

    @property
    def broker(self) -> str:
        """The name of the broker's package in `faststream_otel`."""
        return str(self._settings.get("broker", "kafka"))

    @property
    def next_step(self) -> str:
        """A line for the user, shown when everything runs."""
        return str(self._settings.get("next_step", ""))

    def variable(self, name: str) -> str:
        """Read a variable from the environment, else from .env, else from .env.example."""
        found = (os.environ.get(name), *(values.get(name) for values in self._env_files))
        return next(filter(None, found), "")

    def port(self, variable: str, default: int) -> int:
        """Read a port. Of a range for several replicas, such as 8000-8009, it is the first.

        Raises:
            UserError: The value is not a port.
        """
        value = self.variable(variable) or str(default)
        match = GOOD_PORT.fullmatch(value)
        if match is None or not 1 <= int(match[1]) <= 65535:
            raise UserError(
                f"{variable}={value} is not a port: use a number from 1 to 65535, for example"
                f" {variable}={default}."
            )
        return int(match[1])

    def url(self, variable: str, default: int) -> str:
        """The URL for the port that a variable sets."""
        return f"http://127.0.0.1:{self.port(variable, default)}"

    @cached_property
    def _settings(self) -> dict[str, Any]:
        text = (self.root / "pyproject.toml").read_text("utf-8")
        try:
            return dict(tomllib.loads(text).get("tool", {}).get("faststream-otel", {}))
        except tomllib.TOMLDecodeError as error:
            raise UserError(f"pyproject.toml is not valid TOML: {error}.") from error

    @cached_property
    def _env_files(self) -> list[dict[str, str | None]]:
        return [dotenv_values(self.root / name) for name in (".env", ".env.example")]
