"""One more stream beside more and more that wait, on uvicorn."""

from __future__ import annotations

import os
import resource
import socket
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Self
from unittest.mock import patch

from benchmarks.course import run
from benchmarks.growth.figures import NAMES, OURS, Case, Measures, Size, no_measures, take_turns
from benchmarks.sign_in.databases import Database
from benchmarks.sign_in.results import FLOOR
from benchmarks.streams import Server, config_of, session_of, upstream
from tests.storms.crew import make_users

#: An answer says one word and then nothing for so many seconds, which is longer than a run.
SILENCE = 3600
#: So many arrive at a time.
TOGETHER = 20
#: Seconds between two that come and go: the first is cleared away.
PAUSE = 0.05
#: So that each worker has had some; they are not counted.
WARM_UP = 5
PATHS = {FLOOR: "/patient-proxy", OURS: "/astream"}
TEXT = """
A stream waits for its second word, which does not come. *floor* is a bare asynchronous proxy in the
same project (``patient_proxy`` of ``benchmarks/urls_streams.py``): it hands on byte for byte, and
gives back its connection of the database before that. Otherwise Django would keep one for each
waiting stream, and the twenty of a worker's pool would soon be gone. The proxy has a uvicorn of its
own, with two workers as ours has, so both have as many waiting streams. The first word is that of
one more stream, from the connection on; the memory is that of both workers together. While a stream
waits, this package sends a comment every three seconds, so that it learns when the browser has
gone; the proxy does not. The floor's streams wait while ours is measured, and the other way round.
"""


def measure(database: Database, size: Size) -> Measures:
    """On PostgreSQL; the database is that of the tests' project, as in benchmarks.streams."""
    found: list[Measures] = []
    run(lambda quota: found.append(beside_waiting(size)), "tests.settings_postgresql")
    return found[0]


def beside_waiting(size: Size) -> Measures:
    """In the project that is set up, on its database."""
    allow_many_files()
    # One more than wait, who is the one that comes and goes.
    users = make_users(max(size.at) + 1, expire_in=36_000)
    sessions = {user.username: session_of(user) for user in users}
    with ExitStack() as stack:
        # Each process that reads the tests' settings makes a directory that it leaves behind.
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(patch.dict(os.environ, TMPDIR=folder))
        config = config_of(stack.enter_context(upstream(SILENCE, SILENCE)))
        servers = {name: stack.enter_context(Server("project", config)) for name in NAMES}
        sites = {
            name: stack.enter_context(Site(server, PATHS[name], sessions))
            for name, server in servers.items()
        }

        def turn(at: int, name: str) -> dict[str, float]:
            memory = servers[name].megabytes()
            return {"first word, ms": 1000 * sites[name].one_more(), "memory, MB": memory}

        measures = no_measures()
        for at in size.at:
            for site in sites.values():
                site.wait_until(at)
            take_turns([at], WARM_UP, turn, no_measures())
            take_turns([at], size.rounds, turn, measures)
        for site in sites.values():
            site.require_all_waiting()
        return measures


def allow_many_files() -> None:
    """As many as the system allows, in this process and in those that it starts."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Site:
    """The streams at a server; a context manager that closes them.

    They are plain sockets: nobody reads what comes after the first word, so the waiting ones take
    no time of this process.
    """

    def __init__(self, server: Server, path: str, sessions: dict[str, str]) -> None:
        self.server, self.path, self.sessions = server, path, sessions
        *self._names, self._last_name = sessions
        self._waiting: list[socket.socket] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for stream in self._waiting:
            stream.close()

    def wait_until(self, count: int) -> None:
        """Let more and more streams come, until so many wait."""
        names = self._names[len(self._waiting) : count]
        with ThreadPoolExecutor(TOGETHER) as pool:
            for _ in pool.map(self._add, names):
                pass

    def _add(self, name: str) -> None:
        self._waiting.append(self._begin(name))

    def one_more(self) -> float:
        """One stream comes and goes; how many seconds its first word took."""
        began = time.perf_counter()
        stream = self._begin(self._last_name)
        took = time.perf_counter() - began
        stream.close()
        time.sleep(PAUSE)
        return took

    def _begin(self, name: str) -> socket.socket:
        """A stream of the person with that name, whose first word has come."""
        stream = socket.create_connection(("127.0.0.1", self.server.port), timeout=60)
        cookie = f"sessionid={self.sessions[name]}"
        head = f"GET {self.path} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n"
        stream.sendall(head.encode())
        said = b""
        while f'"{name}"'.encode() not in said:
            part = stream.recv(65536)
            if not part:
                raise RuntimeError(f"{self.path} has ended without a word: {said[:1000]!r}")
            said += part
        return stream

    def require_all_waiting(self) -> None:
        """Raises RuntimeError if one has ended."""
        ended = sum(map(has_ended, self._waiting))
        if ended:
            raise RuntimeError(f"{self.path}: {ended} streams have ended")


def has_ended(stream: socket.socket) -> bool:
    stream.setblocking(False)
    try:
        while stream.recv(65536):
            pass
    except BlockingIOError:
        return False
    return True


CASE = Case(
    name="streams",
    title="One more stream, by streams that wait",
    across="waiting streams",
    text=TEXT,
    full=Size(at=(0, 250, 500, 1000), rounds=30, turn=1),
    quick=Size(at=(0, 20, 40), rounds=3, turn=1),
    measure=measure,
)
