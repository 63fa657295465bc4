"""What things are called: what a good name is, and what follows from it."""

import keyword
import re
from collections.abc import Collection

from ..project import UserError

SERVICE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
CHANNEL = re.compile(r"[a-z][a-z0-9]*([.-][a-z0-9]+)*")
SETTING = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")

COMMANDS = frozenset({"topics", "dead-letters", "replay", "discard"})
"""What `python -m <package>` understands besides the names of services."""
ALIAS = "metrics"
"""The host name that every service has, for Prometheus to find them."""

LONGEST_HOST = 63
LONGEST_CHANNEL = 180
"""Kafka takes 249 characters, of a consumer group too, whose name begins with the service's."""


def check_service(name: str, compose_project: str, taken: Collection[str]) -> None:
    """Raise UserError if a service cannot be called so.

    Args:
        compose_project: Compose puts its name before the service's, and makes a host name of that.
        taken: What all that Compose runs for the project is called.
    """
    if not name:
        raise UserError("Which service? Name it: make service NAME=invoicing")
    room = LONGEST_HOST - len(f"{compose_project}--10")
    if not SERVICE.fullmatch(name):
        fault = "is no name for a service: use lower-case letters and digits, with - between words"
    elif keyword.iskeyword(name):
        fault = "is a keyword of Python, and so no name for a module"
    elif name in COMMANDS:
        fault = "is a command of the package already"
    elif name == ALIAS:
        fault = "is the name by which Prometheus finds all services"
    elif name in taken:
        fault = "is there already: a service of the compose files has that name"
    elif len(name) > room:
        fault = (
            f"is longer than {room} characters, which is what the host name"
            f" {compose_project}-<service>-10 has room for"
        )
    else:
        return
    raise UserError(f"NAME={name} {fault}. A good one: NAME=invoicing")


def check_channel(option: str, topic: str) -> None:
    """Raise UserError if a new channel cannot be called so."""
    if not CHANNEL.fullmatch(topic):
        fault = "is no name for a channel: use lower-case letters and digits, with . or - between"
    elif len(topic) > LONGEST_CHANNEL:
        fault = f"is longer than {LONGEST_CHANNEL} characters"
    else:
        return
    raise UserError(f"{option} {topic} {fault}. A good one: {option} invoices.issued")


def module(service: str) -> str:
    """Name the service's module."""
    return service.replace("-", "_")


def constant(topic: str) -> str:
    """Name the constant of a channel: INVOICES_ISSUED."""
    return re.sub("[.-]", "_", topic).upper()


def contract(topic: str) -> str:
    """Name the class of what travels over a channel: `invoices.issued` has an InvoiceIssued."""
    subject, *happened = topic.split(".")
    *first, last = subject.split("-")
    words = [*first, _singular(last), *(word for part in happened for word in part.split("-"))]
    return "".join(word.capitalize() for word in words)


def _singular(word: str) -> str:
    for plural, singular in (("ies$", "y"), ("(ss|sh|ch|x)es$", r"\1"), ("(?<![sui])s$", "")):
        if (changed := re.sub(plural, singular, word)) not in {word, ""}:
            return changed
    return word
