"""Which letters are meant: by name, by what they are about, by what became of them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from .ledger import Ledger, Mark, State
from .letter import Letter, Position
from .replay import Offsets, Topic


class NotThereError(Exception):
    """There is no such letter; says what there is."""


@dataclass(frozen=True)
class Wanted:
    """Which letters to take; empty: any.

    Attributes:
        positions: Those that were named.
        topic: That they came from.
        error_type: The class of the error, with or without its module.
        states: What may have become of them.
    """

    positions: frozenset[Position] = frozenset()
    topic: str = ""
    error_type: str = ""
    states: frozenset[State] = field(default_factory=lambda: frozenset(State))

    def takes(self, letter: Letter, state: State) -> bool:
        return (
            (not self.positions or letter.position in self.positions)
            and self.topic in ("", letter.topic)
            and self.error_type in ("", letter.error_type, letter.error_type.rpartition(".")[2])
            and state in self.states
        )


class Search:
    """Reads the topic twice: what became of a letter stands after it, and the topic may be large.

    Memory does not grow with the letters, but for what `Ledger` keeps.
    """

    def __init__(self, topic: Topic, wanted: Wanted) -> None:
        self._topic = topic
        self._wanted = wanted
        self.ledger = Ledger()
        self.counts: dict[State, int] = dict.fromkeys(State, 0)
        """How many letters there are, wanted or not, by what became of them; known at the end."""

    async def prepare(self) -> None:
        """Learn what became of the letters.

        Raises:
            NotThereError: One that was named is not there.
        """
        missing = set(self._wanted.positions)
        async for record in self._topic.read(self._start(), self._topic.end):
            if not self.ledger.note(record):
                missing.discard(record.position)
        for position in sorted(missing):
            raise NotThereError(f"There is no dead letter {position}{self._range(position)}.")

    async def letters(self) -> AsyncIterator[tuple[Letter, State]]:
        """Those that are wanted, in the order of each partition."""
        async for record in self._topic.read(self._start(), self._topic.end):
            if Mark.read(record):
                continue
            letter = Letter(record)
            state = self.ledger.state(letter.position)
            self.counts[state] += 1
            if self._wanted.takes(letter, state):
                yield letter, state

    def _start(self) -> Offsets:
        """From the first of those that are named, or from the beginning."""
        if not self._wanted.positions:
            return self._topic.first
        start: dict[int, int] = {}
        for partition, offset in self._wanted.positions:
            if partition in self._topic.first:
                start[partition] = max(
                    min(offset, start.get(partition, offset)), self._topic.first[partition]
                )
        return start

    def _range(self, position: Position) -> str:
        first = self._topic.first.get(position.partition, 0)
        end = self._topic.end.get(position.partition, 0)
        if first == end:
            return f": partition {position.partition} is empty, or not there"
        return (
            f": partition {position.partition} holds {Position(position.partition, first)} to"
            f" {Position(position.partition, end - 1)}, marks of earlier replays among them"
        )
