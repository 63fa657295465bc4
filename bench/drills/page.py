"""Writes the rows that a run printed into docs/drills.md, and their sum into the README.

A page marks where something stands: `<!-- drills:kafka -->` … `<!-- /drills -->`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .promises import PROMISES
from .report import table

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/drills.md"
PAGES = (PAGE, ROOT / "README.md")
BLOCK = re.compile(r"(<!-- drills:(\w+) -->\n).*?(<!-- /drills -->)", re.DOTALL)
ORDER = [promise.fault for promise in PROMISES.values()]


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    line: str

    @property
    def cells(self) -> list[str]:
        return [cell.strip() for cell in re.split(r"(?<!\\)\|", self.line)[1:-1]]

    @property
    def broker(self) -> str:
        return self.cells[0]

    @property
    def fault(self) -> str:
        return self.cells[1]

    @property
    def key(self) -> tuple[str, str]:
        return self.broker, self.fault

    @property
    def kept(self) -> bool:
        return self.cells[-1] == "kept"

    def number(self, column: int) -> int:
        return int(self.cells[column])


ACKNOWLEDGED, LOST, SPANS, SPANS_LOST = 3, 6, 8, 10
"""Columns that hold numbers."""


def rows_of(text: str) -> list[Row]:
    """Return the rows of all tables in a text."""
    found = [Row(line + "\n") for line in text.splitlines() if line.startswith("|")]
    return [row for row in found if row.broker not in {"Broker", "---"} and row.fault in ORDER]


def write(printed: str) -> None:
    """Take the rows that a run printed into the page, in place of older ones."""
    by_key = {row.key: row for row in (*rows_of(PAGE.read_text("utf-8")), *rows_of(printed))}
    for page in PAGES:
        page.write_text(filled(page.read_text("utf-8"), list(by_key.values())), "utf-8")


def filled(text: str, rows: list[Row]) -> str:
    """Return a page with these rows."""

    def block(found: re.Match[str]) -> str:
        if found[2] == "summary":
            return f"{found[1]}{summary(rows)}\n{found[3]}"
        chosen = sorted(
            (row for row in rows if row.broker == found[2]), key=lambda row: ORDER.index(row.fault)
        )
        return f"{found[1]}{table({row.fault: row.line for row in chosen})}{found[3]}"

    return BLOCK.sub(block, text)


def summary(rows: Iterable[Row]) -> str:
    """Say in one sentence what all rows add up to."""
    rows = list(rows)
    brokers = dict.fromkeys(row.broker for row in rows)
    faults = len({row.fault for row in rows})
    broken = sum(not row.kept for row in rows)
    whole = [row for row in rows if "?" not in row.cells]
    acknowledged, lost, spans, spans_lost = (
        sum(row.number(column) for row in whole)
        for column in (ACKNOWLEDGED, LOST, SPANS, SPANS_LOST)
    )
    lossy = sum(row.number(SPANS_LOST) > 0 for row in whole)
    return (
        f"{faults} faults, {len(rows)} drills on {len(brokers)} brokers, promises broken: {broken}."
        f" Of {acknowledged:,} acknowledged orders {lost:,} were lost; of {spans:,} spans"
        f" {spans_lost:,}, in the {lossy} drills whose promise allows it."
    )
