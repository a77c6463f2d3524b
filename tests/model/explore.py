"""Walks through every state of a configuration, breadth first: `python -m tests.model.explore`.

Prints for each configuration how many states there are and the shortest trace to each kind of
violation. Without an argument it explores the small configurations; `--all` takes every
combination, for before a release; `--without RULE` shows what a rule of the engine prevents.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections import deque
from dataclasses import dataclass, fields, replace

from tests.model.engine import (
    Config,
    Faults,
    Rules,
    State,
    Violation,
    check,
    check_end,
    first_state,
    steps,
)

PROVIDERS = ("strict", "lenient", "grace", "keeping", "forgiving")

#: Explored in every test run. Together they reach every step of the model.
SMALL = [
    Config(("caller", "caller"), faults=Faults(crash=1, outage=1, lost_commit=1, slow=1)),
    Config(("caller", "caller", "caller"), faults=Faults(crash=1)),
    Config(("caller", "bulk"), faults=Faults(lost_answer=1, lost_commit=1, slow=2)),
    Config(("caller", "sign-in"), faults=Faults(crash=1, lost_commit=1, slow=2)),
    Config(("caller", "sign-in without refresh token"), faults=Faults(lost_commit=1, slow=2)),
    Config(("caller", "sign-in", "disconnect"), faults=Faults(lost_commit=1)),
    Config(("sign-in", "sign-in", "caller"), faults=Faults(lost_commit=1)),
    Config(("caller", "disconnect", "require"), faults=Faults(lost_commit=1)),
    Config(("caller", "webhook"), faults=Faults(crash=1, lost_commit=1, slow=1)),
    Config(("caller", "webhook", "sign-in"), faults=Faults(outage=1)),
    Config(("caller", "webhook")),
    Config(("caller", "caller", "sign-in without refresh token"), faults=Faults(lost_commit=1)),
]


@dataclass(frozen=True)
class Explored:
    """What the walk through one configuration found."""

    states: int
    edges: int
    #: Kind of violation -> the shortest trace to it.
    violations: dict[str, list[str]]


def explore(config: Config, *, most: int = 10_000_000) -> Explored:
    """Every reachable state of `config`, at most `most` of them."""
    start = first_state(config)
    came_from: dict[State, tuple[State, str] | None] = {start: None}
    queue = deque([start])
    violations: dict[str, list[str]] = {}
    edges = 0

    def trace(state: State) -> list[str]:
        names = []
        at = came_from[state]
        while at is not None:
            names.append(at[1])
            at = came_from[at[0]]
        return names[::-1]

    def note(violation: Violation, state: State) -> None:
        kind = "".join(letter for letter in str(violation) if not letter.isdigit())
        violations.setdefault(kind, [*trace(state), str(violation)])

    while queue and len(came_from) < most:
        state = queue.popleft()
        try:
            following = list(steps(state, config))
            if not following:
                check_end(state, config)
        except Violation as violation:
            note(violation, state)
            continue
        for name, number, after in following:
            edges += 1
            if after in came_from:
                continue
            actor = f"{config.actors[number]} {number}: " if number >= 0 else ""
            came_from[after] = state, actor + name
            try:
                check(after)
            except Violation as violation:
                note(violation, after)
                continue
            queue.append(after)
    return Explored(len(came_from), edges, violations)


def everything() -> list[Config]:
    """Every pair and triple of actors, with every provider, and two faults of any kind."""
    kinds = ("caller", "bulk", "sign-in", "sign-in without refresh token", "disconnect", "require")
    crowds = [
        ("caller", *others)
        for count in (1, 2)
        for others in itertools.combinations_with_replacement((*kinds, "webhook"), count)
    ]
    faults = [
        Faults(**counts)
        for pair in itertools.combinations_with_replacement(Faults._fields, 2)
        for counts in [{name: pair.count(name) for name in set(pair)}]
    ]
    return [
        Config(crowd, provider, budget)
        for crowd in crowds
        for provider in PROVIDERS
        for budget in faults
    ]


def main() -> None:
    """Explore, print, and exit with 1 where a property does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="every combination")
    parser.add_argument("--without", choices=[rule.name for rule in fields(Rules)])
    options = parser.parse_args()
    configs = everything() if options.all else SMALL
    total, found, began = 0, 0, time.monotonic()
    for config in configs:
        if options.without:
            config = replace(config, rules=Rules(**{options.without: False}))
        seen = explore(config)
        total += seen.states
        found += len(seen.violations)
        if not options.all or seen.violations:
            faults = {name: count for name, count in config.faults._asdict().items() if count}
            print(f"{seen.states:>8} states  {config.provider}: {', '.join(config.actors)}", faults)
        for steps_to_it in seen.violations.values():
            print("  VIOLATION", *steps_to_it, sep="\n    ")
    seconds = time.monotonic() - began
    print(f"{len(configs)} configurations, {total} states, {found} violations, {seconds:.0f} s")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
