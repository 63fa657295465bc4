"""Finds dead letters: by id, by channel and error, by what happened to them."""

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field

from .dead_letter import DeadLetter, Record
from .states import State, StateChange, States
from .store import DeadLetterStore


class NotFound(Exception):
    """There is no such dead letter."""


@dataclass(frozen=True)
class Filter:
    """Which dead letters to take; a field that is empty takes any.

    Attributes:
        ids: Those that were named.
        channel: That the message was consumed from.
        error_type: The class of the error, with or without its module.
        states: That a dead letter may be in.
    """

    ids: frozenset[str] = frozenset()
    channel: str = ""
    error_type: str = ""
    states: frozenset[State] = field(default_factory=lambda: frozenset(State))

    def takes(self, dead_letter: DeadLetter, state: State) -> bool:
        error_type = dead_letter.error_type
        return (
            (not self.ids or dead_letter.id in self.ids)
            and self.channel in ("", dead_letter.channel)
            and self.error_type in ("", error_type, error_type.rpartition(".")[2])
            and state in self.states
        )


class Search:
    """Reads twice: what happened to a dead letter stands after it, and there may be many.

    Memory does not grow with the number of dead letters, but for what `States` keeps.

    Attributes:
        states: Known after `prepare`.
        ends: The last id of each log that `prepare` read. What came later is not found.
        counts: How many dead letters there are, taken or not, by state; known after
            `dead_letters`.
    """

    def __init__(self, store: DeadLetterStore, filter: Filter) -> None:
        self._store = store
        self._filter = filter
        self.states = States(store.order)
        self.ends: dict[str, str] = {}
        self.counts: dict[State, int] = dict.fromkeys(State, 0)

    async def prepare(self) -> None:
        """Read what happened to the dead letters.

        Raises:
            NotFound: One that was named does not exist.
        """
        missing = set(self._filter.ids)
        async for record in self._store.read(self._start()):
            self.ends[self._store.order(record.id)[0]] = record.id
            if not self.states.note(record):
                missing.discard(record.id)
        for id in self.sorted(missing):
            raise NotFound(f"There is no dead letter {id}.")

    async def dead_letters(self) -> AsyncIterator[tuple[DeadLetter, State]]:
        """Those that the filter takes, in the order of each log."""
        async for record in self._store.read(self._start()):
            if self._is_later(record) or StateChange.read(record, self._store.order):
                continue
            dead_letter = DeadLetter(record)
            state = self.states.of(dead_letter.id)
            self.counts[state] += 1
            if self._filter.takes(dead_letter, state):
                yield dead_letter, state

    def sorted(self, ids: Collection[str]) -> list[str]:
        return sorted(ids, key=self._store.order)

    def _start(self) -> dict[str, str] | None:
        """From the first one that is named in each log, or else from the beginning."""
        if not self._filter.ids:
            return None
        start: dict[str, str] = {}
        for id in self.sorted(self._filter.ids):
            start.setdefault(self._store.order(id)[0], id)
        return start

    def _is_later(self, record: Record) -> bool:
        log, place = self._store.order(record.id)
        return log not in self.ends or place > self._store.order(self.ends[log])[1]
