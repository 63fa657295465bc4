"""Medians with their spread, ratios within a round, and tables of them in Markdown."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Spread:
    """The median of some figures, the smallest and the largest."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, figures: Iterable[float]) -> "Spread":
        found = list(figures)
        return cls(statistics.median(found), min(found), max(found))

    def text(self, digits: int = 2) -> str:
        """As in a cell: `1.50 (1.42 to 1.61)`."""
        median, least, most = (f"{x:.{digits}f}" for x in (self.median, self.least, self.most))
        return median if least == most else f"{median} ({least} to {most})"


def ratios(rounds: Sequence[Any], key: str, name: str, to: str) -> Spread:
    """Of a figure to another run's, within a round: a machine's speed varies between rounds."""
    return Spread.of(one[name][key] / one[to][key] for one in rounds)


def values(rounds: Sequence[Any], key: str, name: str, unit: float = 1) -> Spread:
    return Spread.of(one[name][key] / unit for one in rounds)


def differences(rounds: Sequence[Any], key: str, name: str, to: str, unit: float) -> Spread:
    """What a figure is above another run's, within a round."""
    return Spread.of((one[name][key] - one[to][key]) / unit for one in rounds)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


MB = 1_000_000
