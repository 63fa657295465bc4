"""The project that the command line works on: `--app <package>`."""

import pkgutil
from collections.abc import Collection
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..settings import BadSetting, Settings

if TYPE_CHECKING:
    from ..service import Service

VARIABLE = "FASTSTREAM_OTEL_APP"


@dataclass(frozen=True)
class App:
    """A project's package, and its parts by convention.

    Raises:
        BadSetting: From any method, if there is no such package or it lacks that part.
    """

    package: str

    def settings(self) -> Settings:
        """A new `<package>.settings.Settings`."""
        made: Settings = self._find("settings", "Settings")()
        return made

    def channels(self) -> Collection[str]:
        """`<package>.channels.CHANNELS`."""
        channels: Collection[str] = self._find("channels", "CHANNELS")
        return channels

    def service_names(self) -> list[str]:
        """The modules of `<package>.services`, with hyphens instead of underscores."""
        modules = pkgutil.iter_modules(self._find("services", "__path__"))
        return sorted(module.name.replace("_", "-") for module in modules)

    def service(self, name: str) -> "Service":
        """Import `<package>.services.<name>.service`."""
        service: Service = self._find(f"services.{name.replace('-', '_')}", "service")
        return service

    def _find(self, module: str, name: str) -> Any:
        if not self.package:
            raise BadSetting(
                f"No project is given: set --app or {VARIABLE} to its package, for example --app"
                " order_flow"
            )
        path = f"{self.package}.{module}"
        if not all(part.isidentifier() for part in path.split(".")):
            raise self._bad("is not the name of a Python package", module)
        try:
            found = import_module(path)
        except ModuleNotFoundError as error:
            if not error.name or not f"{path}.".startswith(f"{error.name}."):
                raise  # the module exists, but one of its own imports does not
            what = "package" if self.package.startswith(error.name) else "module"
            raise self._bad(f"is wrong: there is no {what} {error.name} here", module) from error
        if not hasattr(found, name):
            raise self._bad(f"is wrong: {path} has no {name}", module)
        return getattr(found, name)

    def _bad(self, reason: str, module: str) -> BadSetting:
        needed = "services/" if module.startswith("services") else f"{module}.py"
        return BadSetting(
            f"--app {self.package} ({VARIABLE}) {reason}: set it to the project's package, the"
            f" folder with {needed} in it, for example --app order_flow"
        )
