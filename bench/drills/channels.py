"""What the drills need from a broker, and one implementation for each in `brokers/`.

None of them uses the tested library.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .accounting import Headers, Position, Record, Unread

Ends = Mapping[tuple[str, str], int]
"""Where the channels end. Its keys and numbers are the broker's own."""


@dataclass(frozen=True)
class Message:
    """A message that a drill sends."""

    channel: str
    value: bytes | None
    headers: Headers
    key: bytes | None = None
    """Brokers without keys ignore it."""
    partition: int | None = None
    """By default the key decides, or any. Brokers without partitions ignore it."""
    at: float | None = None
    """Timestamp in Unix seconds; by default the real one. Brokers with a clock ignore it."""


class Channels(Protocol):
    """A broker's channels, at an address of the host.

    All methods but `carries` and `id_of` raise OSError when the broker does not answer.
    """

    def prepare(self) -> None:
        """Do what reading requires, before the first message is sent."""

    def ends(self) -> Ends:
        """Return where the channels end."""

    def read(self, since: Ends) -> list[Record]:
        """Return all records after these ends, of each partition in their order."""

    def unread(self) -> Unread:
        """Count the messages of each channel that its consumer has not acknowledged.

        Zero for all of them means that each message, and all that followed from it, was handled.
        """

    def send(self, messages: Sequence[Message], compression: str = "none") -> list[Position]:
        """Send messages; return the position of each once the broker has them all."""

    def carries(self, message: Message) -> bool:
        """Whether the broker can carry this body and these headers as they are."""

    def id_of(self, attributes: Mapping[str, Any]) -> str:
        """Return the id of the message that a span handled, by its attributes; empty if none."""
