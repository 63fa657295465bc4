"""Finds dead letters by id, channel, error and state."""

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field

from .dead_letter import DeadLetter, Record
from .states import State, StateChange, States
from .store import DeadLetterStore


class NotFound(Exception):
    """There is no dead letter with this id."""


@dataclass(frozen=True)
class Filter:
    """Selects dead letters. An empty field matches any.

    Attributes:
        ids: The ids of the dead letters.
        channel: The channel that the message was consumed from.
        error_type: The class of the error, with or without its module.
        states: The states that a dead letter may be in. Default: any.
    """

    ids: frozenset[str] = frozenset()
    channel: str = ""
    error_type: str = ""
    states: frozenset[State] = field(default_factory=lambda: frozenset(State))

    def matches(self, dead_letter: DeadLetter, state: State) -> bool:
        error_type = dead_letter.error_type
        return (
            (not self.ids or dead_letter.id in self.ids)
            and self.channel in ("", dead_letter.channel)
            and self.error_type in ("", error_type, error_type.rpartition(".")[2])
            and state in self.states
        )


class Search:
    """Reads the logs twice: a change of state comes after its dead letters.

    It does not keep dead letters in memory, only their states.

    Attributes:
        states: The states of the dead letters. `prepare` reads them.
        ends: For each log, the last id that `prepare` read. The search ignores later records.
        counts: Number of dead letters by state, whether they match or not. `dead_letters` counts
            them.
    """

    def __init__(self, store: DeadLetterStore, filter: Filter) -> None:
        self._store = store
        self._filter = filter
        self.states = States(store.order)
        self.ends: dict[str, str] = {}
        self.counts: dict[State, int] = dict.fromkeys(State, 0)

    async def prepare(self) -> None:
        """Read the states of the dead letters.

        Raises:
            NotFound: There is no dead letter with one of the filter's ids.
        """
        missing = set(self._filter.ids)
        async for record in self._store.read(self._start()):
            self.ends[self._store.order(record.id)[0]] = record.id
            if not self.states.apply(record):
                missing.discard(record.id)
        for id in self.sorted(missing):
            raise NotFound(f"There is no dead letter {id}.")

    async def dead_letters(self) -> AsyncIterator[tuple[DeadLetter, State]]:
        """The dead letters that match the filter, in the order of each log."""
        async for record in self._store.read(self._start()):
            if self._is_later(record) or StateChange.read(record, self._store.order):
                continue
            dead_letter = DeadLetter(record)
            state = self.states.of(dead_letter.id)
            self.counts[state] += 1
            if self._filter.matches(dead_letter, state):
                yield dead_letter, state

    def sorted(self, ids: Collection[str]) -> list[str]:
        return sorted(ids, key=self._store.order)

    def _start(self) -> dict[str, str] | None:
        """For each log the first of the filter's ids; None, the beginning, if it has no ids."""
        if not self._filter.ids:
            return None
        start: dict[str, str] = {}
        for id in self.sorted(self._filter.ids):
            start.setdefault(self._store.order(id)[0], id)
        return start

    def _is_later(self, record: Record) -> bool:
        log, place = self._store.order(record.id)
        return log not in self.ends or place > self._store.order(self.ends[log])[1]
