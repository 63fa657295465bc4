"""Runs a service of a project: `python -m <package> <service>`."""

import argparse

from ..telemetry import prepare_environment
from .app import App
from .errors import exit_code


def main(package: str, arguments: list[str] | None = None) -> int:
    """Run the service that the arguments name, and return the exit code: 2 for a bad setting.

    Args:
        package: The project's package. Each module of its `services` has a `service`.
        arguments: Default: those of the command line.
    """
    return exit_code(lambda: _run(App(package), arguments))


def _run(app: App, arguments: list[str] | None) -> int:
    prepare_environment()
    parser = argparse.ArgumentParser(prog=f"python -m {app.package}", description="Run a service.")
    parser.add_argument("service", choices=app.service_names())
    name = parser.parse_args(arguments).service
    app.service(name).run()
    return 0
