"""Locks on a token row, and work on database connections of our own.

Whoever asks for a token may be in a transaction, hold the row's lock, or be a page that must not
wait: what a renewal does to the database must stand whatever becomes of them.
"""

import asyncio
import os
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import cache
from threading import BoundedSemaphore, Thread
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.db import OperationalError, connections, router, transaction
from django.db.models import F
from django.views.decorators.debug import sensitive_variables

from .exceptions import ProviderUnavailable
from .models import QuotaToken

__all__ = [
    "POLL",
    "apart",
    "in_background",
    "in_transaction",
    "locked",
    "patiently",
    "shared",
]

T = TypeVar("T")

#: Set by django_quota.testing: all happens on the caller's connection, in their transaction.
together = False

#: Seconds between two looks of a waiting caller, growing from the first to the second.
POLL = (0.02, 0.25)
#: At most so many renewals go on for async code at once, each on a connection of its own.
MAX_THREADS = 32
_under_way: dict[tuple[asyncio.AbstractEventLoop, Hashable], asyncio.Future[Any]] = {}
#: At most so many renewals go on behind pages that do not wait for them.
_background = BoundedSemaphore(8)


def in_transaction() -> bool:
    """Is the caller in a transaction, whose rollback would bring a spent token back?"""
    if together:
        return False
    connection = connections[router.db_for_write(QuotaToken)]
    return connection.in_atomic_block or not connection.get_autocommit()


def in_background(work: Callable[[], T], timeout: float) -> T:
    """Do `work` apart, and wait for it at most `timeout` seconds; a page must not hang.

    Of such renewals only a few go on at once: while Quota hangs, each holds a connection.
    """
    if not _background.acquire(blocking=False):
        raise ProviderUnavailable("Other tokens are being renewed; try again soon.")
    future = apart(work)
    future.add_done_callback(lambda _: _background.release())
    try:
        return future.result(timeout)
    except TimeoutError:
        raise ProviderUnavailable("The token is still being renewed; try again soon.") from None


def apart(work: Callable[[], T]) -> "Future[T]":
    """Do `work` in a thread of its own, hence on database connections of its own."""
    future: Future[T] = Future()
    context = copy_context()  # a database router may ask it who is served

    def run() -> None:
        try:
            future.set_result(context.run(closing_connections, work))
        except BaseException as error:
            future.set_exception(error)

    if together:
        run()
    else:
        # Not a daemon: once Quota has answered, even a process that ends must save the new pair.
        Thread(target=run, name="django_quota-renewal").start()
    return future


@sensitive_variables()
async def shared(key: Hashable, work: Callable[[], T], timeout: float) -> T:
    """Do `work` in a thread apart, once for all tasks of this event loop that ask for `key`, and
    wait for it at most `timeout` seconds. It goes on if nobody waits."""
    if together:
        return await sync_to_async(work)()
    mine = (asyncio.get_running_loop(), key)
    if mine not in _under_way:
        for other in [other for other in _under_way if other[0].is_closed()]:
            del _under_way[other]  # its loop ended before its work, and nobody took it away
        # Not in the loop's own executor, which looks up host names, too: it has few threads.
        future = asyncio.wrap_future(
            _executor().submit(copy_context().run, closing_connections, work)
        )
        _under_way[mine] = future
        future.add_done_callback(lambda done: _under_way.pop(mine).exception())
    try:
        async with asyncio.timeout(timeout):
            return await asyncio.shield(_under_way[mine])
    except TimeoutError:
        raise ProviderUnavailable("The token is still being renewed; try again soon.") from None


@cache
def _executor() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(MAX_THREADS, "django_quota-renewal")


# A child process has none of its parent's threads.
os.register_at_fork(after_in_child=_executor.cache_clear)


def closing_connections(work: Callable[[], T]) -> T:
    try:
        return work()
    finally:
        if not together:
            connections.close_all()


def patiently(work: Callable[[], T], patience: float) -> T:
    """`work`, repeated for `patience` seconds while the row is locked or the database away.

    Waiting for a lock inside the database instead could take for ever, and its settings for that
    belong to a connection, which a pool hands on to others.
    """
    give_up = time.monotonic() + patience
    pause = POLL[0]
    while True:
        try:
            return work()
        except OperationalError:
            # Not for its age: a pool would have given it to somebody else when we want it back.
            connection = connections[router.db_for_write(QuotaToken)]
            if connection.connection is not None and not connection.is_usable():
                connection.close()
            if time.monotonic() > give_up:
                raise
        time.sleep(pause)
        pause = min(pause * 2, POLL[1])


@contextmanager
@sensitive_variables()
def locked(pk: Any, *secrets: str, skip_locked: bool = False) -> Iterator[QuotaToken | None]:
    """A short transaction that holds the lock of one token row: `select_for_update` by its own
    primary key, without a join (MariaDB would lock the other table's row too). `secrets` are the
    encrypted columns to load with it. If somebody else has the row locked, it raises
    OperationalError at once, or with `skip_locked` gives None, as for a row that is gone."""
    alias = router.db_for_write(QuotaToken)
    rows = QuotaToken.objects.with_secrets(*secrets).filter(pk=pk)
    with transaction.atomic(using=alias):
        if connections[alias].vendor == "sqlite":
            # It has no row locks. Writing first takes its one write lock, and waits for it; a
            # transaction that reads first fails at once if another has written since.
            rows.update(version=F("version"))
        yield rows.select_for_update(nowait=not skip_locked, skip_locked=skip_locked).first()
