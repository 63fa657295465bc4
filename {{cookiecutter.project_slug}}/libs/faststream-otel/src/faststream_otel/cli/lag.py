"""The commands `lag` and `lag-exporter`."""

import argparse
import dataclasses
import json
import logging
import os
import sys
from collections.abc import Iterable
from contextlib import redirect_stdout

from ..messages.broker import Group, Lag
from ..settings import BadSetting
from .app import App
from .command import Context, Subparsers, add_command, quiet

COLUMNS = ("channel", "group", "ready", "in flight")
EXPORTER = "lag"
"""`service.name` of the exporter."""


def add_to(commands: Subparsers) -> None:
    """Add these commands to those of the program."""
    text = "list how many messages each consumer group has not acknowledged"
    lag = add_command(commands, "lag", _lag, text, lists=True)
    lag.add_argument("--json", action="store_true", help="one JSON object a line")
    text = "serve the lag of each consumer group to Prometheus, at HOST and PORT"
    exporter = commands.add_parser(
        "lag-exporter", help=text, description=f"{text[0].upper()}{text[1:]}."
    )
    exporter.set_defaults(run=_export, error=exporter.error)
    for parser in (lag, exporter):
        parser.add_argument(
            "--group",
            type=_group,
            action="append",
            default=[],
            metavar="CHANNEL=GROUP",
            help=(
                "also include this consumer group, which belongs to none of these services; may be"
                " repeated"
            ),
        )


def _group(text: str) -> Group:
    channel, _, name = text.partition("=")
    if not (channel and name):
        raise argparse.ArgumentTypeError(f"{text} is not like orders.placed=billing")
    return Group(channel, name)


def service_groups(app: App) -> dict[Group, str]:
    """The consumer groups of all services, which it imports, each with its service's name."""
    os.environ["OTEL_SDK_DISABLED"] = "true"  # importing a service would start telemetry
    with redirect_stdout(sys.stderr):  # importing a service configures logging, to stdout
        services = [app.service(name) for name in app.service_names()]
    return {group: service.name for service in services for group in service.broker.groups()}


def _groups(app: App, others: list[Group]) -> dict[Group, str]:
    """The consumer groups of all services, each with its service's name, and others without one.

    Raises:
        BadSetting: There are no services and no others.
    """
    try:
        ours = service_groups(app)
    except BadSetting as error:
        if not others:
            raise BadSetting(
                f"{error}. Without services, name the groups: --group orders.placed=billing"
            ) from error
        ours = {}
    return dict.fromkeys(others, "") | ours


def _export(options: argparse.Namespace) -> int:
    from prometheus_client import make_asgi_app

    from ..logs import configure_logging
    from ..messages.lag import LagMetrics
    from ..service import serve
    from ..telemetry import ServiceRegistry
    from ..telemetry.resource import make_resource

    app = App(options.app)
    settings = app.settings()
    broker = settings.broker()
    groups = _groups(app, options.group)
    configure_logging(settings.log_level, dict.fromkeys(broker.noisy_loggers, "CRITICAL"))
    metrics = LagMetrics(broker, groups)
    registry = ServiceRegistry(make_resource(EXPORTER, type(settings).__module__))
    registry.register(metrics)
    serve(metrics.asgi(make_asgi_app(registry)), settings)
    return 0


async def _lag(context: Context) -> int:
    groups = _groups(context.app, context.options.group)
    logging.getLogger().setLevel(logging.WARNING)
    quiet(context.broker)
    found = await context.broker.lag(groups)
    found.sort(key=lambda one: (one.channel, one.group, one.partition))
    if context.options.json:
        for one in found:
            print(json.dumps(dataclasses.asdict(one)))
    else:
        _print_table(found)
    return 0


def _print_table(found: list[Lag]) -> None:
    groups: dict[tuple[str, str], list[Lag]] = {}
    for one in found:
        groups.setdefault((one.channel, one.group), []).append(one)
    rows = [
        COLUMNS,
        *((*names, _sum(one.ready for one in of), _sum(one.in_flight for one in of))
          for names, of in groups.items()),
    ]  # fmt: skip
    widths = [max(len(str(row[column])) for row in rows) for column in range(len(COLUMNS))]
    for row in rows:
        channel, group, *numbers = (str(cell) for cell in row)
        aligned = (
            f"  {number:>{width}}" for number, width in zip(numbers, widths[2:], strict=True)
        )
        print(f"{channel:<{widths[0]}}  {group:<{widths[1]}}{''.join(aligned)}")


def _sum(numbers: Iterable[int | None]) -> int | str:
    known = list(numbers)
    return "unknown" if None in known else sum(filter(None, known))
