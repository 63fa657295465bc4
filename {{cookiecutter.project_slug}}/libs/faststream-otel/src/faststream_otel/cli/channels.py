"""The command `channels`."""

from ..messages.dead_letters import DEAD_LETTERS
from .command import Context, Subparsers, add_command
from .lag import service_groups


def add_to(commands: Subparsers) -> None:
    """Add this command to those of the program."""
    add_command(commands, "channels", _channels, "create the channels that do not exist yet")


async def _channels(context: Context) -> int:
    channels = list(dict.fromkeys((*context.app.channels(), DEAD_LETTERS)))
    groups = service_groups(context.app) if context.broker.stores_by_group else ()
    await context.broker.create_channels(channels, groups)
    print(f"{context.broker.system} at {context.broker.url} has {', '.join(channels)}")
    return 0
