"""django_quota.oidc.cached_document: when a document is fetched, and by which thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from django_quota.exceptions import ConfigurationError, ProviderUnavailable
from django_quota.oidc import cached_document
from django_quota.oidc.cached_document import CachedDocument

Fetch = Callable[[], tuple[str, int | None]]


def bring(*values: str | Exception) -> Fetch:
    """A `fetch` that returns or raises these, one at each call."""
    left = iter(values)

    def fetch() -> tuple[str, int | None]:
        value = next(left)
        if isinstance(value, Exception):
            raise value
        return value, None

    return fetch


def never() -> tuple[str, int | None]:
    raise AssertionError("fetched")


@pytest.fixture
def document() -> CachedDocument[str]:
    return CachedDocument()


@pytest.fixture
def stale_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached_document, "MIN_AGE", 0)
    monkeypatch.setattr(cached_document, "MAX_AGE", 0)


def test_value_from_before_since_is_fetched_again(document: CachedDocument[str]) -> None:
    document.get("key", bring("old"))
    since = time.monotonic()

    assert document.get("key", bring("new"), since=since) == "new"
    assert document.get("key", never, since=since) == "new"


def test_value_from_before_since_is_replaced_once_per_cool_down(
    document: CachedDocument[str],
) -> None:
    document.get("key", bring("old"))
    document.get("key", bring("new"), since=time.monotonic())

    assert document.get("key", never, since=time.monotonic()) == "new"


def test_failing_fetch_returns_the_value_from_before_since(document: CachedDocument[str]) -> None:
    document.get("key", bring("old"))
    away = ProviderUnavailable("away")

    assert document.get("key", bring(away), since=time.monotonic()) == "old"


def test_configuration_error_drops_the_value(document: CachedDocument[str]) -> None:
    document.get("key", bring("old"))
    with pytest.raises(ConfigurationError):
        document.get("key", bring(ConfigurationError("wrong")), since=time.monotonic())

    assert document.get("key", bring("new")) == "new"


def test_other_key_is_fetched(document: CachedDocument[str]) -> None:
    document.get("key", bring("old"))

    assert document.get("other", bring("new")) == "new"


class _SlowFetch:
    """A `fetch` that another thread waits in until `finish` is called."""

    def __init__(self, document: CachedDocument[str], pool: ThreadPoolExecutor) -> None:
        self._started, self._may_end = threading.Event(), threading.Event()
        self._result = pool.submit(document.get, "key", self._fetch, since=time.monotonic())
        assert self._started.wait(10)

    def _fetch(self) -> tuple[str, int | None]:
        self._started.set()
        assert self._may_end.wait(10)
        return "new", None

    def finish(self) -> str:
        self._may_end.set()
        return self._result.result(10)


@pytest.mark.usefixtures("stale_at_once")
def test_stale_value_is_returned_while_another_thread_fetches(
    document: CachedDocument[str],
) -> None:
    document.get("key", bring("old"))
    with ThreadPoolExecutor(1) as pool:
        slow = _SlowFetch(document, pool)
        assert document.get("key", never) == "old"
        assert slow.finish() == "new"


def test_value_from_before_since_waits_for_the_thread_that_fetches(
    document: CachedDocument[str],
) -> None:
    document.get("key", bring("old"))
    since = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        slow = _SlowFetch(document, pool)
        waiting = pool.submit(document.get, "key", never, since=since)
        slow.finish()
        assert waiting.result(10) == "new"


def test_cleared_document_does_not_wait_for_the_thread_that_fetched(
    document: CachedDocument[str],
) -> None:
    """As in the child of a fork, where that thread does not exist."""
    document.get("key", bring("old"))
    with ThreadPoolExecutor(1) as pool:
        slow = _SlowFetch(document, pool)
        document.clear()
        assert document.get("key", bring("child")) == "child"
        slow.finish()
