"""The threads that renew tokens. Each renewal runs once, on its own database connection.

A caller may be in a transaction that is rolled back, or hold the row's lock. It may be a page that
stops waiting, a task that is cancelled, or be interrupted by a time limit. Between Quota's answer
and the save, the new tokens exist only in memory, so none of that may affect the renewal.
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, Self, TypeVar

from django.db import connections

from django_quota.exceptions import ProviderUnavailable
from django_quota.oidc.time_limit import without_limit

from . import leases

T = TypeVar("T")

#: The most renewals at the same time in a process, each on a connection of its own.
THREADS = 32


class SingleFlight:
    """Runs the work of each key once at a time, in a thread with its own connections."""

    def __init__(self) -> None:
        #: Set by django_quota.testing: run the work on the caller's connection, in the transaction
        #: of the test.
        self.inline = False
        self._forget()

    def _forget(self) -> None:
        """Forget all work: a child process has neither its parent's threads nor their work."""
        self._running: dict[Hashable, Future[Any]] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(THREADS, "django_quota-renewal")
        self._stopping = False

    def start(
        self,
        key: Hashable,
        work: Callable[[], T],
        *,
        join: bool = True,
        thread: "OwnThread | None" = None,
    ) -> "Future[T]":
        """Start `work`, or join the work of that key that is running. It goes on if nobody waits.

        It runs in `thread`, or by default in one that closes its connections after the work. Raises
        ProviderUnavailable if no thread can be started or, without `join`, if the key's work is
        running.
        """
        if self.inline:
            return _done(work)
        with self._lock:
            if (running := self._running.get(key)) is not None:
                if not join:
                    raise still_running()
                return running
            try:
                if thread is None:
                    future = self._pool.submit(for_other_thread(work))
                else:
                    future = thread.submit(work)
            except RuntimeError:
                raise ProviderUnavailable(
                    "This process can start no thread to renew the token, perhaps because it is "
                    "ending; try again soon.",
                    request_sent=False,
                ) from None
            self._running[key] = future
        future.add_done_callback(lambda _future: self._ended(key))
        return future

    def _ended(self, key: Hashable) -> None:
        with self._lock:
            self._running.pop(key, None)

    def result(self, future: "Future[T]", timeout: float | None = None) -> T:
        """Return or raise what the work did. Raises ProviderUnavailable after `timeout` seconds.

        An exception that interrupts this thread meanwhile (a time limit, Ctrl-C) is raised after
        the end of the work, because the process may end right after it.
        """
        try:
            return future.result(None if self._stopping else timeout)
        except TimeoutError:
            if future.done():
                raise
            raise still_running() from None
        except BaseException:
            wait([future], leases.longest())
            raise

    async def aresult(self, future: "Future[T]", timeout: float) -> T:
        """`result` for async code. The work goes on if the task is cancelled."""
        mine = asyncio.wrap_future(future)
        # Read the exception, so that the loop does not report it if nobody waits any more.
        mine.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        try:
            async with asyncio.timeout(None if self._stopping else timeout):
                return await asyncio.shield(mine)
        except TimeoutError:
            raise still_running() from None

    def stop(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds for the running work. Call it when the process ends.

        Callers that wait for a result now ignore their own time limits. Returns False if work is
        still running.
        """
        self._stopping = True
        give_up = time.monotonic() + timeout
        with self._lock:
            running = list(self._running.values())
        while running and time.monotonic() < give_up:
            wait(running, give_up - time.monotonic())
            with self._lock:
                running = list(self._running.values())
        return not running

    def is_running(self) -> bool:
        """Return True while work is running."""
        return bool(self._running)


def still_running() -> ProviderUnavailable:
    """Return the error for a caller that stops waiting."""
    return ProviderUnavailable("The token is still being renewed; try again soon.")


def _done(work: Callable[[], T]) -> "Future[T]":
    future: Future[T] = Future()
    try:
        future.set_result(work())
    except Exception as error:
        future.set_exception(error)
    return future


def for_other_thread(work: Callable[[], T]) -> Callable[[], T]:
    """Return a function that calls `work` in another thread.

    It uses its own connections and has no time limit. It runs in the context of this thread,
    because a database router may read the tenant from there.
    """
    return partial(copy_context().run, _on_own_connections, work)


def _on_own_connections(work: Callable[[], T]) -> T:
    """Call `work` on connections outside of the project's pool, and close them afterwards.

    The callers that wait for the work may hold every connection of the pool.
    """
    try:
        return _outside_of_pool(work)
    finally:
        _close_connections()


def _outside_of_pool(work: Callable[[], T]) -> T:
    for alias in connections:
        _leave_pool(alias)
    with without_limit():
        return work()


def _close_connections() -> None:
    for connection in connections.all(initialized_only=True):
        connection.close()
        del connections[connection.alias]


class OwnThread:
    """A thread for many renewals, one after another; a context manager.

    Its connections stay open until the end, because to connect takes longer than to renew.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "django_quota-renewal")

    def submit(self, work: Callable[[], T]) -> "Future[T]":
        """Start `work`, in the context of the caller."""
        return self._pool.submit(copy_context().run, _outside_of_pool, work)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(RuntimeError):  # the process is ending, which closes them, too
            self._pool.submit(_close_connections)
        self._pool.shutdown()


def _leave_pool(alias: str) -> None:
    connection = connections[alias]
    if connection.settings_dict["OPTIONS"].get("pool"):
        own = connection.copy()
        own.settings_dict["OPTIONS"].pop("pool")
        connections[alias] = own


def in_transaction(alias: str) -> bool:
    """Return True if the caller is in a transaction of that database.

    Its rollback would restore a spent token.
    """
    if renewals.inline:
        return False
    connection = connections[alias]
    return connection.in_atomic_block or not connection.get_autocommit()


#: All renewals of this process.
renewals = SingleFlight()

os.register_at_fork(after_in_child=renewals._forget)
