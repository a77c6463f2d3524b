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
from functools import cache, partial
from threading import BoundedSemaphore, Lock, Thread
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.db import Error, OperationalError, connections, router, transaction
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
BACKGROUND = 8
_background = BoundedSemaphore(BACKGROUND)
#: Those that go on, by what was asked for; `_guard` is for who looks and who begins one.
_behind: "dict[Hashable, Future[Any]]" = {}
_guard = Lock()


def in_transaction() -> bool:
    """Is the caller in a transaction, whose rollback would bring a spent token back?"""
    if together:
        return False
    connection = connections[router.db_for_write(QuotaToken)]
    return connection.in_atomic_block or not connection.get_autocommit()


def in_background(key: Hashable, work: Callable[[], T], timeout: float) -> T:
    """Do `work` apart, once for all pages that ask for `key`, and wait for it at most `timeout`
    seconds; a page must not hang.

    Of such renewals only a few go on at once: while Quota hangs, each holds a connection.
    """
    with _guard:
        future: Future[T] = _behind.get(key) or _begin_behind(key, work)
    try:
        return future.result(timeout)
    except TimeoutError:
        raise ProviderUnavailable("The token is still being renewed; try again soon.") from None


def _begin_behind(key: Hashable, work: Callable[[], T]) -> "Future[T]":
    places = _background
    if not places.acquire(blocking=False):
        raise ProviderUnavailable("Other tokens are being renewed; try again soon.")

    def ended(_future: "Future[T]") -> None:
        _behind.pop(key, None)
        places.release()

    try:
        future = apart(work)
    except BaseException:  # no more threads can be started, say
        places.release()
        raise
    _behind[key] = future
    future.add_done_callback(ended)
    return future


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
        for other in list(_under_way):  # at once: other threads have loops, too
            if other[0].is_closed():  # it ended before its work, and nobody took that away
                _under_way.pop(other, None)
        # Not in the loop's own executor, which looks up host names, too: it has few threads.
        future = asyncio.wrap_future(
            _executor().submit(copy_context().run, closing_connections, work)
        )
        _under_way[mine] = future
        future.add_done_callback(partial(_done, mine))
    try:
        async with asyncio.timeout(timeout):
            return await asyncio.shield(_under_way[mine])
    except TimeoutError:
        raise ProviderUnavailable("The token is still being renewed; try again soon.") from None


def _done(mine: tuple[asyncio.AbstractEventLoop, Hashable], future: asyncio.Future[Any]) -> None:
    _under_way.pop(mine, None)
    if not future.cancelled():
        future.exception()  # it is for whoever waits; if nobody does, the loop need not complain


@cache
def _executor() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(MAX_THREADS, "django_quota-renewal")


def _after_fork() -> None:
    """A child process has none of its parent's threads, nor what they were doing."""
    global _background, _guard
    _background = BoundedSemaphore(BACKGROUND)
    _guard = Lock()
    _behind.clear()
    _under_way.clear()
    _executor.cache_clear()


os.register_at_fork(after_in_child=_after_fork)


def closing_connections(work: Callable[[], T]) -> T:
    connection = connections[router.db_for_write(QuotaToken)]
    try:
        if not together and not connection.settings_dict["AUTOCOMMIT"]:
            connection.set_autocommit(True)  # else nobody would commit what is saved here
        return work()
    finally:
        if not together:
            connections.close_all()


def patiently(work: Callable[[], T], patience: float, *, any_error: bool = False) -> T:
    """`work`, repeated for `patience` seconds while the row is locked or the database away. With
    `any_error`, for what must be saved, also after other errors of the database: one that is
    read-only for a while, say, reports another kind.

    Waiting for a lock inside the database instead could take for ever, and its settings for that
    belong to a connection, which a pool hands on to others.
    """
    give_up = time.monotonic() + patience
    pause = POLL[0]
    kind = Error if any_error else OperationalError
    while True:
        try:
            return work()
        except kind:
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
