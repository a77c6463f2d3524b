"""A time limit for a block of code: all of its requests to Quota together must end in time.

The limit belongs to the thread or task, so functions do not pass it on as an argument. Work in
another thread (`tokens.single_flight`) does not inherit it.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

#: The `time.monotonic()` at which the limit ends.
_end: ContextVar[float] = ContextVar("django_quota_time_limit", default=math.inf)


@contextmanager
def within(seconds: float) -> Iterator[float]:
    """Limit the block to `seconds`, or to the rest of an outer limit. Yields the seconds left."""
    now = time.monotonic()
    end = min(now + seconds, _end.get())
    reset = _end.set(end)
    try:
        yield end - now
    finally:
        _end.reset(reset)


@contextmanager
def without_limit() -> Iterator[None]:
    """Lift the limit for the block."""
    reset = _end.set(math.inf)
    try:
        yield
    finally:
        _end.reset(reset)


def limit_ends_at() -> float:
    """Return the `time.monotonic()` at which the limit ends, infinity without a limit."""
    return _end.get()


def seconds_left() -> float | None:
    """Return the seconds until the limit ends, None without a limit."""
    end = _end.get()
    return None if end == math.inf else max(end - time.monotonic(), 0)
