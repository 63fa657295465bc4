"""The state of each dead letter, recorded in the channel of the dead letters itself.

A change of state is a record in the same log as its dead letters, after them. So the broker's
retention deletes it after them. Before a replay sends a dead letter, it records the replay as
begun. If two replays begin at once, the order of their records decides which is first. Afterwards
it records the dead letter as replayed. If that record is missing, the dead letter may have been
sent or not.
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
"""How long other replays leave a dead letter alone after its replay has begun."""
MAX_IDS = 1000
"""The maximum number of ids in one record."""

Order: TypeAlias = Callable[[str], tuple[str, int]]
"""Returns the log of an id, and its place there: `DeadLetterStore.order`."""


class State(StrEnum):
    """The state of a dead letter. `BEGUN` becomes `UNCONFIRMED` after `BEGUN_SECONDS`."""

    OPEN = "open"
    BEGUN = "begun"
    UNCONFIRMED = "unconfirmed"
    REPLAYED = "replayed"
    DISCARDED = "discarded"


TO_DO = frozenset({State.OPEN, State.UNCONFIRMED})
_RECORDED = frozenset(State) - {State.UNCONFIRMED}


@dataclass(frozen=True)
class StateChange:
    """A change of state of dead letters in one log. `OPEN` cancels a replay that has begun."""

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
        """Read a record; None for a dead letter, and for an invalid change of state."""
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
    """The states of dead letters, according to the records that were read so far.

    It needs about 100 bytes of memory for each dead letter that is not open.
    """

    def __init__(self, order: Order) -> None:
        self._order = order
        self._ended: dict[tuple[str, State], set[int]] = {}
        self._begun: dict[tuple[str, int], float] = {}

    def apply(self, record: Record) -> bool:
        """Apply a record's changes of state. Returns False if the record is a dead letter."""
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
        # The clock of the other replay may be ahead.
        recent = abs(time.time() - begun) < BEGUN_SECONDS
        return State.BEGUN if recent else State.UNCONFIRMED

    def begun(self, id: str) -> float | None:
        """When a replay began that has not ended, in Unix seconds; None if there is none."""
        return self._begun.get(self._order(id))
