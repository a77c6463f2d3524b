"""The servers of the soak, as a deployment runs them, and what they take up."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from tests.helpers.programs import free_port

COMMANDS = {
    "gunicorn": [
        *("gunicorn", "django.core.wsgi:get_wsgi_application()", "--worker-class", "gthread"),
        *("--workers", "2", "--threads", "16", "--timeout", "120", "--bind"),
    ],
    "uvicorn": [
        *("uvicorn", "django.core.asgi:get_asgi_application", "--factory", "--lifespan", "off"),
        # On a busy machine, five seconds without an answer do not mean that it is dead.
        *("--workers", "2", "--timeout-worker-healthcheck", "20", "--no-access-log", "--port"),
    ],
}


class Server:
    """One of COMMANDS, with two workers."""

    #: Process -> when it was killed, of all servers.
    killed: dict[int, float] = {}

    def __init__(self, name: str, env: dict[str, str], log: Path, database_port: int) -> None:
        self.name, self._env, self._log = name, env, log
        self._database_port = database_port
        self.port = free_port()
        self.origin = f"http://127.0.0.1:{self.port}"
        #: When somebody may have been cut off: from, until.
        self._disturbed: list[tuple[float, float]] = []
        self._workers: set[int] = set()
        #: Workers that have ended by themselves.
        self.died = 0

    def start(self) -> None:
        address = str(self.port) if self.name == "uvicorn" else f"127.0.0.1:{self.port}"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *COMMANDS[self.name], address],
                env=self._env,
                stdout=log,
                stderr=log,
            )
        while self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                break
            time.sleep(0.1)
        assert self._process.returncode is None, f"{self.name} has ended; see {self._log}"
        self._workers = set(self.workers())

    def stop(self) -> float:
        """As a deployment does; how many seconds it took."""
        self._workers = set()
        began = time.monotonic()
        self._process.terminate()
        try:
            self._process.wait(90)
        except subprocess.TimeoutExpired:
            for process in self._family():
                process.kill()
            raise
        return time.monotonic() - began

    def restart(self) -> float:
        """Stop and start; how many seconds the stop took."""
        began = time.time()
        self._disturbed.append((began, float("inf")))
        took = self.stop()
        self.start()
        self._disturbed[-1] = (began, time.time() + 2)
        return took

    def kill_worker(self) -> int:
        """SIGKILL to one of the workers, which the server replaces."""
        victim = random.choice(self.workers())
        self._workers.discard(victim)
        os.kill(victim, signal.SIGKILL)
        self.killed[victim] = time.time()
        # The other worker goes on, but who was in the queue of this one is cut off.
        self._disturbed.append((time.time() - 0.5, time.time() + 5))
        return victim

    def was_disturbed(self, since: float, until: float) -> bool:
        """Was there a moment in that time at which a client could be cut off?"""
        return any(begin <= until and since <= end for begin, end in self._disturbed)

    def workers(self) -> list[int]:
        """The processes that serve."""
        names = ("resource_tracker",)
        return [
            child.pid
            for child in psutil.Process(self._process.pid).children()
            if not any(name in part for part in child.cmdline() for name in names)
        ]

    def _family(self) -> list[psutil.Process]:
        master = psutil.Process(self._process.pid)
        return [master, *master.children(recursive=True)]

    def takes(self) -> dict[str, int]:
        """Memory in MB, threads, and connections to the database, of all its processes."""
        found: dict[str, Any] = {"memory": 0, "threads": 0, "connections": 0}
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in self._family():
                found["memory"] += process.memory_info().rss / 1_000_000
                found["threads"] += process.num_threads()
                found["connections"] += sum(
                    1
                    for one in process.net_connections("tcp")
                    if one.raddr and one.raddr.port == self._database_port
                )
        return {name: round(number) for name, number in found.items()}

    def look_after_workers(self) -> None:
        """Count those that have ended, and nobody has ended them."""
        with contextlib.suppress(psutil.NoSuchProcess):
            now = set(self.workers())
            self.died += len(self._workers - now - set(self.killed))
            self._workers = now if self._workers else set()
