"""Callers of one process who ask for the token of one user at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.helpers.concurrency import GIVE_UP_AFTER, closes_connections, outcome


class Callers:
    """They wait, each in a thread of its own and connected to the database, until they may ask."""

    def __init__(
        self, count: int, load: Callable[[], Any], ask: Callable[[Any], str | None]
    ) -> None:
        self._load, self._ask = load, ask
        self._ready = threading.Barrier(count + 1)
        self._released = threading.Event()
        self._pool = ThreadPoolExecutor(count)
        self._answers = [self._pool.submit(closes_connections(self._call)) for _ in range(count)]
        self._ready.wait(GIVE_UP_AFTER)

    def _call(self) -> str:
        user = self._load()
        self._ready.wait(GIVE_UP_AFTER)
        self._released.wait(GIVE_UP_AFTER)
        return outcome(lambda: str(self._ask(user)))

    def release(self) -> list[str]:
        """What each of them got: a token, or the error."""
        self._released.set()
        with self._pool:
            return [answer.result() for answer in self._answers]
