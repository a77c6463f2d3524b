"""Django's cache, which is optional: without it, everything works with more requests to Quota.

These functions raise no errors of the cache. They store plain values only, because not every cache
can pickle, and no secrets.
"""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from django.core.cache import cache

logger = logging.getLogger("django_quota.caching")
T = TypeVar("T")


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


def claim(key: str, seconds: float, *, if_down: bool = False) -> bool:
    """Return True for the first caller within `seconds`, of all processes that share the cache.

    Returns `if_down` if the cache is down. With a cache for each process, it works within a process
    only.
    """
    if _safely(lambda: cache.add(key, True, seconds)):
        return True
    # Some caches hide that they are down: they add nothing, and then the key is not there.
    return if_down and get(key) is None


def increase(key: str, by: int, seconds: float) -> None:
    """Add to a counter of all processes that share the cache. It begins at 0, for `seconds`."""
    _safely(lambda: (cache.add(key, 0, seconds), cache.incr(key, by)))


def forget(key: str) -> None:
    """Delete the value of `key`."""
    _safely(lambda: cache.delete(key))
