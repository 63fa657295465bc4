"""Runs a service of a project: `python -m <package> <service>`."""

import argparse
import gc
import pkgutil
import sys
from importlib import import_module

from pydantic import ValidationError

from ..settings import BadSetting
from ..telemetry import BadVariable, prepare_environment


def main(package: str, arguments: list[str] | None = None) -> int:
    """Run the service that the arguments name, and return the exit code: 2 for a bad setting.

    Args:
        package: Of the project; each module of its package `services` holds a `service`.
        arguments: Default: those of the command line.
    """
    try:
        prepare_environment()
        services = import_module(f"{package}.services")
        modules = sorted(module.name for module in pkgutil.iter_modules(services.__path__))
        parser = argparse.ArgumentParser(prog=f"python -m {package}", description="Run a service.")
        parser.add_argument("service", choices=[name.replace("_", "-") for name in modules])
        name = parser.parse_args(arguments).service.replace("-", "_")
        # Messages make many short-lived objects and few cycles: the default threshold has the
        # collector look through them thousands of times a second.
        gc.set_threshold(50_000, 20, 20)
        import_module(f"{package}.services.{name}").service.run()
    except (BadSetting, BadVariable) as error:
        print(error, file=sys.stderr)
        return 2
    except ValidationError as error:
        if not error.title.endswith("Settings"):
            raise
        for one in error.errors():
            print(f"{'.'.join(map(str, one['loc'])).upper()}: {one['msg']}", file=sys.stderr)
        return 2
    return 0
