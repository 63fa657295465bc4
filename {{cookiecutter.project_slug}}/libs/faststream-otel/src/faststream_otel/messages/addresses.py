"""Parses `BROKER_URL`, a list of servers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from ..settings import BadSetting

_HOST_NAME = re.compile(r"(?!.{254})[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")


class Server(NamedTuple):
    """One server. `str` formats it as clients expect."""

    host: str
    """`server.address`: a name or an address, an IPv6 address without brackets."""
    port: int
    """`server.port`."""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Addresses:
    """The format of `BROKER_URL` for one broker.

    Attributes:
        host: A host name for examples.
        port: The default port.
        schemes: Maps a scheme in lower case, such as `ssl`, to the setting to use instead.
    """

    host: str
    port: int
    schemes: Mapping[str, str] = field(default_factory=dict)

    def parse(self, text: str) -> tuple[Server, ...]:
        """Parse a list such as `kafka-1:9092, kafka-2`.

        Servers keep their order. Empty and repeated entries are dropped.

        Raises:
            BadSetting: The text is not such a list. The error hides what may be a password.
        """
        if "@" in text:
            raise BadSetting(
                "BROKER_URL must not contain a user name or password: set BROKER_USERNAME and"
                f" BROKER_PASSWORD, and {self._example}"
            )
        entries = [entry for entry in map(str.strip, text.split(",")) if entry]
        if not entries:
            raise BadSetting(f"BROKER_URL names no broker: set {self._example}")
        for entry in entries:
            scheme, separator, _ = entry.partition("://")
            if separator:
                raise BadSetting(self._without_scheme(scheme, entries))
        return tuple(dict.fromkeys(map(self._server, entries)))

    @property
    def _example(self) -> str:
        return f"for example BROKER_URL={self.host}:{self.port}"

    @property
    def _ipv6(self) -> str:
        return f"an IPv6 address needs brackets: set for example BROKER_URL=[::1]:{self.port}"

    def _server(self, entry: str) -> Server:
        if entry.startswith("["):
            host, bracket, port = entry[1:].partition("]")
            if not bracket or not _is_ipv6(host) or (port and not port.startswith(":")):
                raise _bad(entry, self._ipv6)
            return Server(host, self._port(entry, port[1:]) if port else self.port)
        if re.search(r"[;\s]", entry):
            raise _bad(
                entry, f"commas separate brokers, as in BROKER_URL=a:{self.port},b:{self.port}"
            )
        if re.search(r"[/?#]", entry):
            raise _bad(entry, f"a path is not allowed: set {self._example}")
        if entry.count(":") > 1:
            raise _bad(entry, self._ipv6)
        host, colon, port = entry.partition(":")
        if not host:
            raise _bad(entry, f"it has no host: set {self._example}")
        if not _is_host(host):
            raise _bad(entry, f"it is not a host name or address: set {self._example}")
        return Server(host, self._port(entry, port) if colon else self.port)

    def _port(self, entry: str, text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
            raise _bad(entry, f"a port is a number from 1 to 65535, {self._example}")
        return int(text)

    def _without_scheme(self, scheme: str, entries: list[str]) -> str:
        setting = self.schemes.get(scheme.lower(), "")
        needed = f"{setting} and " if setting else ""
        try:
            bare = ",".join(entry.split("://")[-1] for entry in entries)
            servers = ",".join(map(str, self.parse(bare)))
        except BadSetting:
            servers = f"{self.host}:{self.port}"
        return (
            f"BROKER_URL must not contain a scheme such as {scheme}://: set"
            f" {needed}BROKER_URL={servers}"
        )


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


def _bad(entry: str, reason: str) -> BadSetting:
    return BadSetting(f"BROKER_URL cannot be read at {entry!r}: {reason}")
