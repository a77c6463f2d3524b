"""The measuring: this process is the browser of everybody who signs in."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import certifi

from benchmarks.sign_in.contestants import PROJECTS
from benchmarks.sign_in.databases import Database
from benchmarks.sign_in.workers import Worker
from tests.helpers.certificates import certificate

#: What is timed. A sign-in, of the person "returning" or of a new one, is the start view and the
#: callback, without the time at the provider's pages.
RETURNING, NEW, START, TOKEN = "returning", "new", "start", "token"
VISITS = (RETURNING, NEW, START, TOKEN)
#: Rounds that are not counted: discovery, keys, templates, caches.
WARM_UP = 3


@dataclass
class Figures:
    """Of one contestant in one situation."""

    #: Which of `contestant.CHECKS` held.
    checks: list[str] = field(default_factory=list)
    #: Visit -> "statements", "requests" (what was asked), "connections" of one.
    counts: dict[str, dict[str, Any]] = field(default_factory=lambda: defaultdict(dict))
    #: Visit -> "wall" and "cpu", in seconds, by round.
    times: dict[str, dict[str, list[float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )

    def note(self, visit: str, took: dict[str, Any]) -> None:
        for clock in ("wall", "cpu"):
            self.times[visit][clock].append(took[clock])


class Provider(Worker):
    """The provider's process; its certificate is in `folder`."""

    def __init__(self, folder: Path) -> None:
        made = certificate("127.0.0.1")
        private, public = folder / "private.pem", folder / "ca.pem"
        private.write_bytes(made.private + made.public)
        # Among all others, as in production: whoever connects anew may have to read them anew.
        public.write_bytes(Path(certifi.where()).read_bytes() + made.public)
        #: The environment of a process that trusts it.
        self.trust = dict.fromkeys(("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"), str(public))
        super().__init__("benchmarks.sign_in.provider", BENCHMARK_CERTIFICATE=str(private))


class Course:
    """All contestants, who have been started for one database and one scheme."""

    def __init__(self, names: list[str], quota: Provider, database: Database, scheme: str) -> None:
        self.names, self.quota, self.database, self.scheme = names, quota, database, scheme
        self.workers: dict[str, Worker] = {}
        self._count = 0

    @contextmanager
    def open(self) -> Iterator[None]:
        with ExitStack() as stack:
            origin = self.quota.ask("origin", scheme=self.scheme)
            for name in self.names:
                database = stack.enter_context(self.database.new(name))
                said = json.dumps({"name": name, "database": database, "origin": origin})
                worker = Worker(
                    "benchmarks.sign_in.contestant", BENCHMARK_CONTESTANT=said, **self.quota.trust
                )
                self.workers[name] = stack.enter_context(worker)
            self._tell_all("ready")
            yield

    def _tell_all(self, do: str, **what: Any) -> None:
        for worker in self.workers.values():
            worker.tell(do, **what)
        for worker in self.workers.values():
            worker.answer()

    def fill(self, users: int) -> None:
        """So many users more, in each database."""
        self._tell_all("fill", count=users)

    def measure(self, latency: float, rounds: int) -> dict[str, Figures]:
        self.quota.ask("set_latency", scheme=self.scheme, seconds=latency)
        figures = {name: Figures() for name in self.names}
        for name, of in figures.items():
            for _ in range(WARM_UP):
                self._turn(name, Figures())
            if PROJECTS[name].start:
                self._count_visits(name, of)
        for _ in range(rounds):
            for name in random.sample(self.names, len(self.names)):
                self._turn(name, figures[name])
        for name, of in figures.items():
            if PROJECTS[name].start:
                self._check(name, self._new_person())
                of.checks = self._check(name, RETURNING)
        return figures

    def _new_person(self) -> str:
        self._count += 1
        return f"person-{self._count}"

    def _turn(self, name: str, figures: Figures) -> None:
        """Everything once."""
        if PROJECTS[name].start:
            visits = [(RETURNING, RETURNING), (NEW, self._new_person())]
            for visit, sub in random.sample(visits, 2):
                start, callback = self._sign_in(name, sub)
                both = {clock: start[clock] + callback[clock] for clock in ("wall", "cpu")}
                figures.note(visit, both)
                figures.note(START, start)
        took = self.workers[name].ask("token", sub=RETURNING)
        if took is not None:
            figures.note(TOKEN, took)
            figures.counts[TOKEN] = {"statements": took["statements"]}

    def _sign_in(self, name: str, sub: str, how: str = "come_back") -> tuple[Any, Any]:
        start = self.workers[name].ask("start")
        back = self.quota.ask("agree", scheme=self.scheme, url=start["location"], sub=sub)
        return start, self.workers[name].ask(how, url=back)

    def _count_visits(self, name: str, figures: Figures) -> None:
        for visit, sub in ((RETURNING, RETURNING), (NEW, self._new_person())):
            self.quota.ask("count", scheme=self.scheme)
            _, statements = self._sign_in(name, sub, "count")
            seen = self.quota.ask("count", scheme=self.scheme)
            figures.counts[visit] = {
                "statements": statements,
                "requests": seen["requests"],
                "connections": seen["connections"],
            }

    def _check(self, name: str, sub: str) -> list[str]:
        """What one more sign-in has written. Raises RuntimeError if a promise is not kept."""
        self._sign_in(name, sub)
        seen = self.quota.ask("count", scheme=self.scheme)
        checks: list[str] = self.workers[name].ask(
            "check", sub=sub, refresh_token=seen["refresh_token"]
        )
        if missing := set(PROJECTS[name].promises) - set(checks):
            raise RuntimeError(f"{name}: after a sign-in there is no {', '.join(sorted(missing))}")
        return checks
