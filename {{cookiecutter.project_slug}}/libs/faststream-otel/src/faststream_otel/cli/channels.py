"""The commands `channels` and `lag`."""

import dataclasses
import json
import logging
import os
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

from ..messages.broker import Lag, StoresByGroup
from ..messages.dead_letters import DEAD_LETTERS
from .command import Context, Subparsers, add_command, quiet

if TYPE_CHECKING:
    from ..service import Service

COLUMNS = ("channel", "group", "ready", "in flight")


def add_to(commands: Subparsers) -> None:
    """Add these commands to those of the program."""
    add_command(commands, "channels", _channels, "create the channels that do not exist yet")
    text = "list how many messages each consumer group has not acknowledged"
    lag = add_command(commands, "lag", _lag, text, lists=True)
    lag.add_argument("--json", action="store_true", help="one JSON object a line")


async def _channels(context: Context) -> int:
    channels = list(dict.fromkeys((*context.app.channels(), DEAD_LETTERS)))
    await context.broker.create_channels(channels)
    if isinstance(context.broker, StoresByGroup):
        for service in _services(context):
            assert isinstance(service.broker, StoresByGroup)
            await service.broker.create_groups()
    print(f"{context.broker.system} at {context.broker.url} has {', '.join(channels)}")
    return 0


async def _lag(context: Context) -> int:
    found = [one for service in _services(context) for one in await service.broker.lag()]
    found.sort(key=lambda one: (one.channel, one.group, one.partition))
    if context.options.json:
        for one in found:
            print(json.dumps(dataclasses.asdict(one)))
    else:
        _print_table(found)
    return 0


def _services(context: Context) -> "list[Service]":
    os.environ["OTEL_SDK_DISABLED"] = "true"  # importing a service would start telemetry
    with redirect_stdout(sys.stderr):  # and would log to stdout
        services = [context.app.service(name) for name in context.app.service_names()]
    logging.getLogger().setLevel(logging.WARNING)
    quiet(context.broker)
    return services


def _print_table(found: list[Lag]) -> None:
    sums: dict[tuple[str, str], tuple[int, int]] = {}
    for one in found:
        ready, in_flight = sums.get((one.channel, one.group), (0, 0))
        sums[one.channel, one.group] = ready + one.ready, in_flight + one.in_flight
    rows = [COLUMNS, *((*names, *numbers) for names, numbers in sums.items())]
    widths = [max(len(str(row[column])) for row in rows) for column in range(len(COLUMNS))]
    for row in rows:
        channel, group, *numbers = (str(cell) for cell in row)
        aligned = (
            f"  {number:>{width}}" for number, width in zip(numbers, widths[2:], strict=True)
        )
        print(f"{channel:<{widths[0]}}  {group:<{widths[1]}}{''.join(aligned)}")
