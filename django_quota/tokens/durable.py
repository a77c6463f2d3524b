"""Writes that must happen even if the caller's transaction fails or the database is away.

A rollback must not remove the record of a call that was paid for, and a failure to write it must
not break the transaction. So it is written on another connection. While the database is away, it
waits in memory for a limited time, and so does a token that is to be revoked.
"""

import logging
import math
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from django.db import Error

from django_quota.exceptions import QuotaError

from . import locking
from .single_flight import for_other_thread

logger = logging.getLogger("django_quota.durable")
T = TypeVar("T")

#: Seconds for which an item waits in memory.
PATIENCE = 300
#: Items that may wait at the same time.
MOST = 1000
#: Seconds between two attempts, which grow from the first to the second number.
PAUSE = (0.5, 10.0)


def run_in_thread(work: Callable[[], T]) -> T:
    """Call `work` in another thread, with its own connections, and return its result.

    Raises what `work` raises, and RuntimeError if no thread can be started.
    """
    return start_in_thread(work).result()


def start_in_thread(work: Callable[[], T]) -> "Future[T]":
    """`run_in_thread` without the wait, for code that runs on an event loop."""
    thread = ThreadPoolExecutor(1, "django_quota-write")
    future = thread.submit(for_other_thread(work))
    thread.shutdown(wait=False)  # it ends after its work
    return future


def with_lock_timeout(work: Callable[[], T], alias: str) -> T:
    """Call `work` in a transaction that waits at most `locking.LOCK_WAIT` seconds for a lock, which
    the caller itself may hold."""
    with locking.write_transaction(alias):
        return work()


@dataclass(frozen=True)
class _Waiting:
    work: Callable[[], object]
    #: For the log. Never a secret.
    what: str
    give_up: float


class Outbox:
    """Repeats work in one thread, until it succeeds or PATIENCE is over."""

    def __init__(self) -> None:
        self._items: list[_Waiting] = []
        self._forget()

    def _forget(self) -> None:
        """Drop everything: a child process has neither its parent's threads nor their work."""
        self._items.clear()  # ends a thread of this process that is between two attempts
        self._items = []
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def put(self, work: Callable[[], object], what: str) -> None:
        """Call `work` later, and again as long as it raises an error of the database or Quota.

        `what` describes it in the log.
        """
        later = for_other_thread(work)
        with self._lock:
            if len(self._items) >= MOST:
                logger.error("%s: given up, because too many items are waiting", what)
                return
            self._items.append(_Waiting(later, what, time.monotonic() + PATIENCE))
            if self._thread is not None:
                return
            self._thread = threading.Thread(
                target=self._work_off,
                args=(self._items, self._ending),
                name="django_quota-outbox",
                daemon=True,
            )
            try:
                self._thread.start()
            except RuntimeError:  # the process is ending
                self._thread = None
                self._items.clear()
                logger.error("%s: given up, because no thread can be started", what)

    def is_waiting(self) -> bool:
        """Return True while items are waiting, which the end of the process would lose."""
        return bool(self._items)

    def stop(self, timeout: float) -> None:
        """Try all items once more, for the end of the process. Wait at most `timeout` seconds."""
        self._ending.set()
        if (thread := self._thread) is not None:
            thread.join(timeout)

    def _work_off(self, items: list[_Waiting], ending: threading.Event) -> None:
        ending.wait(PAUSE[0])
        for _attempt in locking.pauses(math.inf, PAUSE, ending.wait):
            is_last = ending.is_set()
            for item in list(items):
                if self._is_done(item, is_last):
                    with self._lock, suppress(ValueError):  # `_forget` has removed it
                        items.remove(item)
            with self._lock:
                if not items:
                    if items is self._items:
                        self._thread = None
                    return

    def _is_done(self, item: _Waiting, is_last: bool) -> bool:
        try:
            item.work()
        except (Error, QuotaError) as error:
            if not is_last and time.monotonic() < item.give_up:
                return False
            logger.error("%s: given up: %s", item.what, type(error).__name__)
        except Exception as error:
            logger.error("%s: given up: %s", item.what, type(error).__name__)
        else:
            logger.warning("%s: done after a delay", item.what)
        return True


#: The items that wait in this process.
outbox = Outbox()

os.register_at_fork(after_in_child=outbox._forget)
