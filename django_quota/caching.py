"""Django's cache as a convenience: without it everything works, only with more requests to Quota.

Nothing here raises, and only plain values go in, for not every cache can pickle. No secret does.
"""

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from django.core.cache import cache

__all__ = ["change", "claim", "forget", "get", "keep", "once"]

logger = logging.getLogger("django_quota.caching")
T = TypeVar("T")

#: Seconds after which a lock of somebody who has died is free; between two looks; and for which one
#: looks, at most.
LOCK_SECONDS, PAUSE, PATIENCE = 2, 0.005, 0.1


def _safely(work: Callable[[], T]) -> T | None:
    try:
        return work()
    except Exception as error:
        logger.warning("the cache does not work: %s", type(error).__name__)
        return None


def get(key: str) -> Any:
    """What is kept under `key`, None for nothing."""
    return _safely(lambda: cache.get(key))


def keep(key: str, value: Any, seconds: float) -> None:
    """Keep a plain value for so many seconds; for none, or fewer, not at all."""
    _safely(lambda: cache.set(key, value, max(seconds, 0)))


def claim(key: str, seconds: float) -> bool:
    """True for the first who asks within so many seconds, of all who share the cache."""
    return bool(_safely(lambda: cache.add(key, True, seconds)))


def forget(key: str) -> None:
    """Drop what is kept under `key`."""
    _safely(lambda: cache.delete(key))


def change(key: str, work: Callable[[], T]) -> T | None:
    """`work`, which reads and writes `key`, while no other process or thread does.

    None where the lock was not to be had: not for what must happen.
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
    """`work`, done once by all who ask for `key` while it is being done, and for so many seconds
    after. Who has waited for `patience` seconds does it, too.

    It is for double clicks: without a cache that all processes share, each of them does it once.
    """
    give_up = time.monotonic() + patience
    while not _safely(lambda: cache.add(key, "", patience)):
        found = get(key)
        if isinstance(found, str) and found:
            return found
        if found is None or time.monotonic() > give_up:
            break  # it failed for who was doing it; or the cache is down, and some do not say so
        time.sleep(10 * PAUSE)
    try:
        made = work()
    except BaseException:
        forget(key)
        raise
    keep(key, made, seconds)
    return made
