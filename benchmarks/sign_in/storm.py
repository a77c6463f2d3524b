"""A storm of expired tokens: one user's token has expired, and many callers ask for it at once.

Each contestant that renews tokens is a crew of processes on one database, as the workers of a site
are. Each storm begins with new tokens, so none suffers from the one before.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks.sign_in.contestants import PROJECTS
from benchmarks.sign_in.databases import Database, SQLite
from benchmarks.sign_in.run import Provider
from benchmarks.sign_in.workers import Worker

SCHEME = "http"
#: Seconds before each answer of the provider.
LATENCY = 0.05
#: The user whom `Contestant.fill` makes first.
SUB = "somebody-0"


def size_for(database: Database) -> int:
    """Processes, and threads in each: SQLite lets one write at a time."""
    return 4 if isinstance(database, SQLite) else 8


@dataclass
class Storms:
    """What the storms of one contestant came to, by round."""

    #: What `rotation.Family.judge` says.
    ends: list[dict[str, Any]] = field(default_factory=list)
    #: Seconds to the last answer.
    times: list[float] = field(default_factory=list)


class Crews:
    """`size` processes of each contestant, for callers in `size` threads of each."""

    def __init__(self, names: list[str], quota: Provider, database: Database, size: int) -> None:
        self.names = [name for name in names if PROJECTS[name].renews]
        self.quota, self.database, self.size = quota, database, size
        self._crews: dict[str, list[Worker]] = {}

    @contextmanager
    def open(self) -> Iterator[None]:
        with ExitStack() as stack:
            origin = self.quota.ask("origin", scheme=SCHEME)
            for name in self.names:
                database = stack.enter_context(self.database.new(f"{name} storm"))
                said = json.dumps({"name": name, "database": database, "origin": origin})
                crew = self._crews[name] = []
                # The first process makes the tables before the others start.
                for others in (1, self.size - 1):
                    started = [self._start(stack, said) for _ in range(others)]
                    for worker in started:
                        worker.ask("ready")
                    crew += started
                crew[0].ask("fill", count=1)
            yield

    def _start(self, stack: ExitStack, said: str) -> Worker:
        worker = Worker(
            "benchmarks.sign_in.contestant", BENCHMARK_CONTESTANT=said, **self.quota.trust
        )
        return stack.enter_context(worker)

    def measure(self, rounds: int) -> dict[str, Storms]:
        self.quota.ask("set_latency", scheme=SCHEME, seconds=LATENCY)
        storms = {name: Storms() for name in self.names}
        for crew in self._crews.values():
            for worker in crew:  # each process reads the provider's metadata
                self._storm([worker], Storms(), threads=1)
        for _ in range(rounds):
            for name in random.sample(self.names, len(self.names)):
                self._storm(self._crews[name], storms[name], self.size)
        return storms

    def _storm(self, crew: list[Worker], storms: Storms, threads: int) -> None:
        tokens = self.quota.ask("issue", scheme=SCHEME)
        crew[0].ask("expire", sub=SUB, **tokens)
        ask_all(crew, "gather", sub=SUB, count=threads)
        began = time.monotonic()
        answers = ask_all(crew, "release")
        storms.times.append(time.monotonic() - began)
        got = [said for each in answers for said in each]
        stored = crew[0].ask("stored", sub=SUB)
        end = self.quota.ask("judge", scheme=SCHEME, got=got, refresh_token=stored)
        storms.ends.append(end)


def ask_all(crew: list[Worker], do: str, **what: Any) -> list[Any]:
    """What each answers to the same order; all of them follow it at once."""
    for worker in crew:
        worker.tell(do, **what)
    return [worker.answer() for worker in crew]
