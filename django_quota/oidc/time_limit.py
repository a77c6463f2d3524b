"""The time limit for all requests to Quota of a block of code together.

It belongs to the thread or task that sets it, so no function has to take it as an argument. Work
for another thread (`tokens.single_flight`) begins without a limit.
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
    """Limit the block to `seconds`, and yield the seconds left. An outer limit may end earlier."""
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
