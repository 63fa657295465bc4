"""`python -m <package> <command>`: run one service, create the topics, see to dead letters."""

import argparse
import asyncio
import gc
import pkgutil
import sys
from collections.abc import Callable
from importlib import import_module

from pydantic import ValidationError

from . import services
from .settings import BadSetting, Settings
from .telemetry import BadVariable, prepare_environment


def main() -> int:
    try:
        return _run()
    except (BadSetting, BadVariable) as error:
        print(error, file=sys.stderr)
    except ValidationError as error:
        if error.title != Settings.__name__:
            raise
        for one in error.errors():
            print(f"{'.'.join(map(str, one['loc'])).upper()}: {one['msg']}", file=sys.stderr)
    return 2


def _run() -> int:
    prepare_environment()
    from .dead_letters.commands import add_to  # imports OpenTelemetry, which reads it

    modules = sorted(module.name for module in pkgutil.iter_modules(services.__path__))
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    for module in modules:
        service = commands.add_parser(module.replace("_", "-"), help="run this service")
        service.set_defaults(run=lambda options, module=module: _serve(module))
    topics = commands.add_parser("topics", help="create the topics that are not there yet")
    topics.set_defaults(run=lambda options: _create_topics())
    add_to(commands)
    options = parser.parse_args()
    run: Callable[[argparse.Namespace], int] = options.run
    return run(options)


def _serve(module: str) -> int:
    # Messages make many short-lived objects and few cycles: the default threshold has the
    # collector look through them thousands of times a second.
    gc.set_threshold(50_000, 20, 20)
    import_module(f".services.{module}", __package__).service.run()
    return 0


def _create_topics() -> int:
    from . import messaging

    settings = Settings()
    try:
        asyncio.run(messaging.create_channels(settings))
    except messaging.Unreachable as error:
        print(f"no topics created at {settings.broker_url} (BROKER_URL): {error}", file=sys.stderr)
        return 1
    print(f"topics are there at {settings.broker_url}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
