"""Parses `BROKER_URL`, a list of Kafka's bootstrap servers."""

import re
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple, get_args

from ..settings import BadSetting
from .settings import KafkaSettings

DEFAULT_PORT = 9092

_PROTOCOLS = get_args(KafkaSettings.model_fields["broker_security_protocol"].annotation)
_HOST_NAME = re.compile(r"(?!.{254})[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
_IPV6 = "an IPv6 address needs brackets: set for example BROKER_URL=[::1]:9092"


class Server(NamedTuple):
    """One bootstrap server. `str` gives it in the form that a client takes."""

    host: str
    """`server.address`: a name or an address, an IPv6 address without brackets."""
    port: int
    """`server.port`."""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def bootstrap_servers(settings: KafkaSettings) -> tuple[Server, ...]:
    """The servers of BROKER_URL. Raises BadSetting like `parse`."""
    return parse(settings.broker_url)


def parse(text: str) -> tuple[Server, ...]:
    """Parse a list such as `kafka-1:9092, kafka-2`. The default port is 9092.

    Servers keep their order. Empty and repeated entries are dropped.

    Raises:
        BadSetting: The text is not such a list. The error hides what may be a password.
    """
    if "@" in text:
        raise BadSetting(
            "BROKER_URL takes no user name or password: set BROKER_USERNAME and BROKER_PASSWORD,"
            " and for example BROKER_URL=kafka:9092"
        )
    entries = [entry for entry in map(str.strip, text.split(",")) if entry]
    if not entries:
        raise BadSetting("BROKER_URL names no broker: set for example BROKER_URL=kafka:9092")
    for entry in entries:
        scheme, separator, _ = entry.partition("://")
        if separator:
            raise BadSetting(_without_scheme(scheme, entries))
    return tuple(dict.fromkeys(map(_server, entries)))


def _server(entry: str) -> Server:
    if entry.startswith("["):
        host, bracket, port = entry[1:].partition("]")
        if not bracket or not _is_ipv6(host) or (port and not port.startswith(":")):
            raise _bad(entry, _IPV6)
        return Server(host, _port(entry, port[1:]) if port else DEFAULT_PORT)
    if re.search(r"[;\s]", entry):
        raise _bad(entry, "commas separate brokers, as in BROKER_URL=a:9092,b:9092")
    if re.search(r"[/?#]", entry):
        raise _bad(entry, "a path is not allowed: set for example BROKER_URL=kafka:9092")
    if entry.count(":") > 1:
        raise _bad(entry, _IPV6)
    host, colon, port = entry.partition(":")
    if not host:
        raise _bad(entry, "it has no host: set for example BROKER_URL=kafka:9092")
    if not _is_host(host):
        raise _bad(entry, "it is not a host name or address: set for example BROKER_URL=kafka:9092")
    return Server(host, _port(entry, port) if colon else DEFAULT_PORT)


def _port(entry: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise _bad(entry, "a port is a number from 1 to 65535, as in BROKER_URL=kafka:9092")
    return int(text)


def _is_host(text: str) -> bool:
    if not _HOST_NAME.fullmatch(text):
        return False
    if not text.rstrip(".").rpartition(".")[2].isdecimal():
        return True
    try:  # a host name does not end in a number, so 9092 alone is not a host
        IPv4Address(text)
    except ValueError:
        return False
    return True


def _is_ipv6(text: str) -> bool:
    if not re.fullmatch(r"[0-9A-Fa-f:.]+(%[A-Za-z0-9_-]{1,15})?", text):
        return False
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def _without_scheme(scheme: str, entries: list[str]) -> str:
    protocol = scheme.upper()
    needed = f"BROKER_SECURITY_PROTOCOL={protocol} and " if protocol in _PROTOCOLS else ""
    try:
        servers = ",".join(map(str, parse(",".join(entry.split("://")[-1] for entry in entries))))
    except BadSetting:
        servers = "kafka:9092"
    return f"BROKER_URL takes no scheme such as {scheme}://: set {needed}BROKER_URL={servers}"


def _bad(entry: str, reason: str) -> BadSetting:
    return BadSetting(f"BROKER_URL cannot be read at {entry!r}: {reason}")
