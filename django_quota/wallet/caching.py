"""Django's cache, which is optional: without it, everything works with more requests to Quota.

These functions raise no errors of the cache. They store plain values only, because not every cache
can pickle, and no secrets.
"""

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from django.core.cache import cache

logger = logging.getLogger("django_quota.caching")
T = TypeVar("T")

#: Seconds after which a lock ends, if the process that holds it has died.
LOCK_SECONDS = 2
#: Seconds between two attempts to get a lock, and seconds of all attempts.
PAUSE, PATIENCE = 0.005, 0.1


def _safely(work: Callable[[], T]) -> T | None:
    try:
        return work()
    except Exception as error:
        logger.warning("the cache does not work: %s", type(error).__name__)
        return None


def get(key: str) -> Any:
    """Return the value of `key`; None if there is none."""
    return _safely(lambda: cache.get(key))


def keep(key: str, value: Any, seconds: float) -> None:
    """Store a plain value for `seconds`. With 0 or less, it is not stored."""
    _safely(lambda: cache.set(key, value, max(seconds, 0)))


def claim(key: str, seconds: float) -> bool:
    """Return True for the first caller within `seconds`, of all processes that share the cache."""
    return bool(_safely(lambda: cache.add(key, True, seconds)))


def forget(key: str) -> None:
    """Delete the value of `key`."""
    _safely(lambda: cache.delete(key))


def change(key: str, work: Callable[[], T]) -> T | None:
    """Call `work`, which reads and writes `key`, while no other process or thread does.

    Returns None without calling it if the lock stays taken for PATIENCE seconds.
    """
    lock = f"{key}.lock"
    give_up = time.monotonic() + PATIENCE
    while not _safely(lambda: cache.add(lock, True, LOCK_SECONDS)):
        if time.monotonic() > give_up:
            return None
        time.sleep(PAUSE)
    try:
        return work()
    finally:
        forget(lock)


def once(key: str, work: Callable[[], str], *, seconds: float, patience: float) -> str:
    """Call `work` once for all callers with `key`, and return its result to all of them.

    That includes callers during the call and for `seconds` after it. A caller who has waited for
    `patience` seconds calls `work` too. It is meant for double clicks: without a cache that all
    processes share, each process calls `work` once.
    """
    give_up = time.monotonic() + patience
    while not _safely(lambda: cache.add(key, "", patience)):
        found = get(key)
        if isinstance(found, str) and found:
            return found
        if found is None or time.monotonic() > give_up:
            break  # `work` failed for the other caller, or the cache is down without an error
        time.sleep(10 * PAUSE)
    try:
        made = work()
    except BaseException:
        forget(key)
        raise
    keep(key, made, seconds)
    return made
