"""A document of Quota's, cached in the memory of this process.

Not in a shared cache, which other programs could write to: these documents decide who signs in and
where the client secret is sent.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Generic, TypeVar

from django_quota.conf import get_settings
from django_quota.exceptions import ConfigurationError, ProviderUnavailable

from .time_limit import within

T = TypeVar("T")

#: Seconds that a document is fresh: the default, and the limits for its Cache-Control header.
MIN_AGE, DEFAULT_AGE, MAX_AGE = 300, 3600, 86_400
#: Seconds between two attempts to replace a document that is there. Tokens with an invented `kid`
#: ask for new keys, and must not make us flood Quota with requests.
COOL_DOWN = 30


@dataclass(frozen=True, kw_only=True)
class _Fetched(Generic[T]):
    """What was fetched. The times are those of time.monotonic()."""

    key: object
    value: T
    fetched_at: float
    fresh_until: float

    def is_fresh(self, now: float, since: float) -> bool:
        return now < self.fresh_until and self.fetched_at >= since


class CachedDocument(Generic[T]):
    """A document that one thread at a time fetches and all threads share."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Return to the state of a new process. The lock is new, too: after a fork, another
        thread's lock would never be released."""
        self._lock = Lock()
        self._fetched: _Fetched[T] | None = None
        self._next_fetch_at = 0.0
        self._failed_at = 0.0

    def get(
        self, key: object, fetch: Callable[[], tuple[T, int | None]], *, since: float = -math.inf
    ) -> T:
        """Return the value for `key` if it is fresh and was fetched after `since`; else fetch it.

        `fetch` returns the value and its max-age in seconds. `since` is a time.monotonic(); an
        older value than that is replaced once in COOL_DOWN seconds.

        While `fetch` fails, the old value is returned: with it, sign-ins work during an outage of
        Quota. Raises ProviderUnavailable if there is no value, and ConfigurationError if `fetch`
        does.
        """
        asked_at = time.monotonic()
        kept = self._kept(key)
        if kept is not None and kept.is_fresh(asked_at, since):
            return kept.value
        # A stale value is good enough while another thread fetches a new one; one from before
        # `since` is not.
        must_wait = kept is None or kept.fetched_at < since
        lock = self._lock
        with within(get_settings().deadline) as seconds:
            if lock.acquire(timeout=max(seconds, 0) if must_wait else 0):
                try:
                    return self._get_locked(key, fetch, since, asked_at)
                finally:
                    lock.release()
        if kept is not None:
            return kept.value
        raise ProviderUnavailable("Quota does not answer; try again later.", request_sent=False)

    def _kept(self, key: object) -> _Fetched[T] | None:
        fetched = self._fetched
        return fetched if fetched is not None and fetched.key == key else None

    def _get_locked(
        self,
        key: object,
        fetch: Callable[[], tuple[T, int | None]],
        since: float,
        asked_at: float,
    ) -> T:
        now = time.monotonic()
        kept = self._kept(key)
        if kept is not None:
            if kept.is_fresh(now, since) or now < self._next_fetch_at:
                return kept.value
            self._next_fetch_at = now + COOL_DOWN
        elif self._failed_at > asked_at:
            # The fetch that this thread waited for has failed: do not wait for one more time-out.
            raise ProviderUnavailable("Quota cannot be reached; try again later.")
        try:
            value, max_age = fetch()
        except ProviderUnavailable:
            self._failed_at = time.monotonic()
            if kept is None:
                raise
            return kept.value
        except ConfigurationError:
            # Not an outage: the project has to change its settings. Every caller gets this error;
            # with the old value kept, only one in COOL_DOWN seconds would.
            self._fetched = None
            raise
        age = min(max(DEFAULT_AGE if max_age is None else max_age, MIN_AGE), MAX_AGE)
        self._fetched = _Fetched(key=key, value=value, fetched_at=now, fresh_until=now + age)
        return value
