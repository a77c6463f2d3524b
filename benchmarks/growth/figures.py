"""What a case is, how its contestants take turns, and what becomes of the figures."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from benchmarks.sign_in.databases import Database
from benchmarks.sign_in.results import FLOOR, spread

OURS = "django_quota"
#: The floor comes first: ours is compared with it.
NAMES = (FLOOR, OURS)

#: What was measured -> contestant -> where (so many workers, rows ...) -> values, by round.
Measures = dict[str, dict[str, dict[int, list[float]]]]
#: One turn of a contestant somewhere: what was measured -> value.
Turn = Callable[[int, str], dict[str, float]]


@dataclass(frozen=True)
class Size:
    """How much of a case is measured."""

    at: tuple[int, ...]
    rounds: int
    #: How long a turn is: seconds, reads, renewals of each process, or streams.
    turn: float


@dataclass(frozen=True)
class Case:
    name: str
    title: str
    #: What there is more and more of.
    across: str
    #: What is measured, for the page; "{turn}" stands for how long a turn is.
    text: str
    full: Size
    quick: Size
    measure: Callable[[Database, Size], Measures]

    def results(self, database: Database, size: Size) -> dict[str, Any]:
        measures = self.measure(database, size)
        return {
            "name": self.name,
            "title": self.title,
            "across": self.across,
            "text": self.text.format(turn=f"{size.turn:,g}"),
            "rounds": size.rounds,
            "at": list(size.at),
            "measures": {what: spreads(values, size.at) for what, values in measures.items()},
        }


def spreads(
    values: dict[str, dict[int, list[float]]], places: Iterable[int]
) -> dict[str, list[dict[str, float]]]:
    """Contestant -> a `results.spread` for each place, in their order."""
    return {
        name: [spread(there[at], values[FLOOR][at]) for at in places]
        for name, there in values.items()
    }


def no_measures() -> Measures:
    return defaultdict(lambda: {name: defaultdict(list) for name in NAMES})


def take_turns(places: Iterable[int], rounds: int, turn: Turn, measures: Measures) -> None:
    """Everywhere, in an order of its own in each round."""
    turns = [(at, name) for at in places for name in NAMES]
    for _ in range(rounds):
        for at, name in random.sample(turns, len(turns)):
            for what, value in turn(at, name).items():
                measures[what][name][at].append(value)


def take_all_turns(size: Size, turn: Turn) -> Measures:
    """As `size` says, after one round that is not counted."""
    take_turns(size.at, 1, turn, no_measures())
    measures = no_measures()
    take_turns(size.at, size.rounds, turn, measures)
    return measures
