"""What happened to each dead letter. The channel itself says so, in records beside dead letters.

Such a record is in the log of the dead letters that it names, and after them, so that it outlives
them, whatever the broker's retention. Before a dead letter is sent back, its replay is recorded as
begun: of two who begin at once, the order of these records says who was first. Afterwards it is
recorded as replayed. One that was begun and never ended may have been sent or not.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self, TypeAlias

from .dead_letter import Record
from .headers import CONTENT_TYPE, STATE

BEGUN_SECONDS = 60.0
"""How long a dead letter is left to whoever began its replay."""
MAX_IDS = 1000
"""In one record."""

Order: TypeAlias = Callable[[str], tuple[str, int]]
"""The log that an id is of, and its place there; `DeadLetterStore.order`."""


class State(StrEnum):
    """What happened to a dead letter. One that is `BEGUN` for a minute becomes `UNCONFIRMED`."""

    OPEN = "open"
    BEGUN = "begun"
    UNCONFIRMED = "unconfirmed"
    REPLAYED = "replayed"
    DISCARDED = "discarded"


TO_DO = frozenset({State.OPEN, State.UNCONFIRMED})
_RECORDED = frozenset(State) - {State.UNCONFIRMED}


@dataclass(frozen=True)
class StateChange:
    """What happened to some dead letters of one log. `OPEN`: their replay did not take place."""

    state: State
    ids: Sequence[str]

    @property
    def headers(self) -> dict[str, str]:
        return {STATE: self.state.value, CONTENT_TYPE: "application/json"}

    @property
    def body(self) -> bytes:
        return json.dumps({"ids": list(self.ids)}).encode()

    @classmethod
    def read(cls, record: Record, order: Order) -> Self | None:
        """None for a dead letter, and for what only claims to be a change of state."""
        name = record.text.get(STATE)
        if name is None or name not in _RECORDED:
            return None
        try:
            ids = json.loads(record.body or b"")["ids"]
            if (
                not isinstance(ids, list)
                or len(ids) > MAX_IDS
                or not all(isinstance(one, str) for one in ids)
            ):
                return None
            log, place = order(record.id)
            places = [order(one) for one in ids]
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        if any(its_log != log or its_place >= place for its_log, its_place in places):
            return None
        return cls(State(name), ids)


class States:
    """The states as the records that were read so far say.

    Takes some 100 bytes of memory for each dead letter that is not open.
    """

    def __init__(self, order: Order) -> None:
        self._order = order
        self._ended: dict[tuple[str, State], set[int]] = {}
        self._begun: dict[tuple[str, int], float] = {}

    def note(self, record: Record) -> bool:
        """Take the record's changes into account; False if it is a dead letter."""
        if (change := StateChange.read(record, self._order)) is None:
            return False
        for log, place in map(self._order, change.ids):
            if change.state is State.BEGUN:
                self._begun[log, place] = record.timestamp
                continue
            self._begun.pop((log, place), None)
            if change.state is not State.OPEN:
                self._ended.setdefault((log, change.state), set()).add(place)
        return True

    def of(self, id: str) -> State:
        log, place = self._order(id)
        for state in (State.REPLAYED, State.DISCARDED):
            if place in self._ended.get((log, state), ()):
                return state
        begun = self._begun.get((log, place))
        if begun is None:
            return State.OPEN
        # Whoever began it may have a clock that is ahead.
        recent = abs(time.time() - begun) < BEGUN_SECONDS
        return State.BEGUN if recent else State.UNCONFIRMED

    def begun(self, id: str) -> float | None:
        """Unix seconds at which a replay began that is not known to have ended."""
        return self._begun.get(self._order(id))
