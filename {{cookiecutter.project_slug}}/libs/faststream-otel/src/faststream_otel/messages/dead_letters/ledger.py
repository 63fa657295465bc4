"""What became of each dead letter. The topic itself remembers: a mark is a record beside letters.

A mark is in the partition of the letters that it names, and after them: so it outlives them,
however the topic forgets. Before a letter is sent back it is marked as `begun`, and by the order of
marks two who do so at once see who was first; afterwards it is marked as `replayed`. One that was
begun and never ended may have been sent or not.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from .letter import PREFIX, Position, Record

MARK = f"{PREFIX}mark"
"""The header that tells a mark from a letter."""
BEGUN_SECONDS = 60.0
"""For so long a letter whose replay was begun is left to whoever began it."""
MOST_LETTERS = 1000
"""That one mark names."""


class State(StrEnum):
    """`BEGUN` comes to an end: after a minute without one, the letter is `UNCONFIRMED`."""

    OPEN = "open"
    BEGUN = "begun"
    UNCONFIRMED = "unconfirmed"
    REPLAYED = "replayed"
    DISCARDED = "discarded"


TO_DO = frozenset({State.OPEN, State.UNCONFIRMED})
_MARKED = {State.OPEN, State.BEGUN, State.REPLAYED, State.DISCARDED}


@dataclass(frozen=True)
class Mark:
    """What became of the letters at these offsets of one partition. `OPEN`: nothing, after all."""

    state: State
    offsets: Sequence[int]

    @property
    def headers(self) -> dict[str, str]:
        return {MARK: self.state.value, "content-type": "application/json"}

    @property
    def value(self) -> bytes:
        return json.dumps({"offsets": list(self.offsets)}).encode()

    @classmethod
    def read(cls, record: Record) -> Self | None:
        """None for what is a letter; a mark that cannot be read is one, of a stranger."""
        name = record.text.get(MARK)
        if name is None or name not in _MARKED:
            return None
        try:
            offsets = json.loads(record.value or b"")["offsets"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        before = record.position.offset
        if (
            not isinstance(offsets, list)
            or len(offsets) > MOST_LETTERS
            or not all(type(one) is int and 0 <= one < before for one in offsets)
        ):
            return None
        return cls(State(name), offsets)


class Ledger:
    """What marks said so far. Takes some 60 bytes for each letter that is not open."""

    def __init__(self) -> None:
        self._ended: dict[tuple[int, State], set[int]] = {}
        self._begun: dict[Position, float] = {}

    def note(self, record: Record) -> bool:
        """Whether the record is a mark; if so, what it says is known from now on."""
        if (mark := Mark.read(record)) is None:
            return False
        partition = record.position.partition
        for offset in mark.offsets:
            position = Position(partition, offset)
            if mark.state is State.BEGUN:
                self._begun[position] = record.timestamp
                continue
            self._begun.pop(position, None)
            if mark.state is not State.OPEN:
                self._ended.setdefault((partition, mark.state), set()).add(offset)
        return True

    def state(self, position: Position) -> State:
        for state in (State.REPLAYED, State.DISCARDED):
            if position.offset in self._ended.get((position.partition, state), ()):
                return state
        begun = self._begun.get(position)
        if begun is None:
            return State.OPEN
        # Whoever began it may have a clock that is ahead.
        recent = abs(time.time() - begun) < BEGUN_SECONDS
        return State.BEGUN if recent else State.UNCONFIRMED

    def begun(self, position: Position) -> float | None:
        """Unix seconds at which the replay began of one that is not known to have ended."""
        return self._begun.get(position)
