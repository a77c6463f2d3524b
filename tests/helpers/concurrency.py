"""Callers beside each other, in threads and event loops, and how a test waits for them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.db import connections
from django.db.models import F

P = ParamSpec("P")
T = TypeVar("T")

#: Seconds after which a test that waits fails. No test depends on it, so it is generous.
GIVE_UP_AFTER = 60


def wait_until(happened: Callable[[], object]) -> None:
    """Wait until `happened` returns something true: where there is no event to wait for."""
    give_up = time.monotonic() + GIVE_UP_AFTER
    while not happened():
        assert time.monotonic() < give_up, "it did not happen"
        time.sleep(0.01)


async def async_wait_until(happened: Callable[[], object]) -> None:
    """`wait_until` for a task: the event loop goes on meanwhile."""
    give_up = time.monotonic() + GIVE_UP_AFTER
    while not happened():
        assert time.monotonic() < give_up, "it did not happen"
        await asyncio.sleep(0.01)


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns, run in an event loop of its own.

    The loop's thread for synchronous code outlives the loop, so its database connections are
    closed here.
    """

    async def main() -> T:
        try:
            return await work
        finally:
            await sync_to_async(connections.close_all)()

    return asyncio.run(main())


def closes_connections(work: Callable[P, T]) -> Callable[P, T]:
    """Decorator of what runs in a thread of its own: it closes the connections opened there."""

    @wraps(work)
    def closing(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return work(*args, **kwargs)
        finally:
            connections.close_all()

    return closing


def begin_together(works: Sequence[Callable[[], T]]) -> list[T]:
    """Return what each of `works` returned; all begin at once, each in a thread of its own."""
    barrier = threading.Barrier(len(works), timeout=GIVE_UP_AFTER)

    @closes_connections
    def run(work: Callable[[], T]) -> T:
        barrier.wait()
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(run, works))


def outcome(work: Callable[[], str]) -> str:
    """Return what `work` returned, or the class and the words of what it raised."""
    try:
        return work()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@contextmanager
def locked_elsewhere(pk: Any = None) -> Iterator[Callable[[], None]]:
    """Another connection holds the lock of the token row `pk` (by default of all of them).

    On SQLite that is the one write lock. It ends with the block, or before that when the function
    that the block gets is called.
    """
    from django.db import transaction

    from django_quota.models import QuotaToken

    rows = QuotaToken.objects.all() if pk is None else QuotaToken.objects.filter(pk=pk)
    locked, over = threading.Event(), threading.Event()

    @closes_connections
    def hold() -> None:
        with transaction.atomic():
            rows.update(scope=F("scope"))
            locked.set()
            over.wait()

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()

    def unlock() -> None:
        over.set()
        thread.join()

    try:
        assert locked.wait(GIVE_UP_AFTER)
        yield unlock
    finally:
        unlock()
