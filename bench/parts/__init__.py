"""What is measured, each part by itself. A part has

- `run(bench)`: measures, and returns what goes into the JSON;
- `ROUNDS`: how many it makes at most, if it is long;
- `tables(result)`: its tables, in Markdown, by their names on docs/cost.md.
"""

import argparse
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from ..run import Load
from ..sink import Sink
from ..sites import KafkaSite, Site

PARTS = ("variants", "memory", "bursts", "collector", "growth", "backlog", "brokers", "profile")

Round = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """What a part measures with.

    Attributes:
        sites: The servers by kind. The first one is for all parts but `brokers`.
        rounds: Of all variants.
        quick: A fifth of the messages: for a look.
    """

    sites: Mapping[str, Site]
    sink: Sink
    rounds: int
    quick: bool

    @property
    def site(self) -> Site:
        return next(iter(self.sites.values()))

    @property
    def kafka(self) -> KafkaSite | None:
        """The first server, if it is a Kafka."""
        return self.site if isinstance(self.site, KafkaSite) else None

    def number(self, whole: int) -> int:
        return max(10, whole // 5) if self.quick else whole

    def load(self, load: Load) -> Load:
        """A fifth of it, for a look."""
        return replace(load, messages=self.number(load.messages), warm_up=self.number(load.warm_up))

    def interleaved(self, runs: Mapping[str, Callable[[], Round]], rounds: int = 0) -> list[Round]:
        """Run all of them in each round, every other round backwards.

        Args:
            rounds: At most.
        """
        done = []
        wanted = min(rounds or self.rounds, self.rounds)
        for number in range(wanted):
            order = list(runs) if number % 2 == 0 else list(runs)[::-1]
            figures = {}
            for name in order:
                figures[name] = runs[name]()
                told = {key: round(x, 3) for key, x in figures[name].items() if type(x) is float}
                say(f"  {number + 1}/{wanted} {name}: {told}")
            done.append({name: figures[name] for name in runs})
        return done


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def rounds(name: str, wanted: int) -> int:
    """How many rounds a part makes."""
    return min(wanted, getattr(import_module(f".{name}", __name__), "ROUNDS", wanted))


def run(name: str, bench: Bench) -> Any:
    return import_module(f".{name}", __name__).run(bench)


def tables(name: str, result: Any) -> dict[str, str]:
    made: dict[str, str] = import_module(f".{name}", __name__).tables(result)
    return made


def chosen_of(known: Collection[str]) -> Callable[[str], list[str]]:
    """A type for argparse: some of these parts, as `NAME,…`."""

    def chosen(text: str) -> list[str]:
        names = text.split(",")
        if unknown := set(names) - set(known):
            raise argparse.ArgumentTypeError(
                f"there is no part {', '.join(sorted(unknown))}; use {', '.join(known)}"
            )
        return names

    return chosen
