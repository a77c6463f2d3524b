"""The cache as a convenience: one step for all who share it, and no trouble without it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.core.cache import cache

from django_quota.wallet import caching


class TestOnce:
    def test_many_at_once_do_it_once(self) -> None:
        done = []
        ready = threading.Barrier(8)

        def work() -> str:
            done.append(1)
            return "made"

        def ask(_: int) -> str:
            ready.wait()
            return caching.once("key", work, seconds=60, patience=20)

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(ask, range(8))) == ["made"] * 8
        assert len(done) == 1

    def test_who_waits_gets_what_the_other_makes(self) -> None:
        begun, go_on = threading.Event(), threading.Event()

        def slow() -> str:
            begun.set()
            assert go_on.wait(20)
            return "the first's"

        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(lambda: caching.once("key", slow, seconds=60, patience=20))
            assert begun.wait(20)
            second = pool.submit(
                lambda: caching.once("key", lambda: "the second's", seconds=60, patience=20)
            )
            go_on.set()
            assert first.result() == second.result() == "the first's"

    def test_a_failure_is_not_kept(self) -> None:
        with pytest.raises(ZeroDivisionError):
            caching.once("key", lambda: str(1 // 0), seconds=60, patience=20)
        assert caching.once("key", lambda: "made", seconds=60, patience=20) == "made"

    def test_who_waits_in_vain_does_it(self) -> None:
        cache.add("key", "", 60)  # somebody has died
        assert caching.once("key", lambda: "made", seconds=60, patience=0) == "made"

    def test_no_seconds_keep_nothing(self) -> None:
        caching.once("key", lambda: "one", seconds=0, patience=20)
        assert caching.once("key", lambda: "two", seconds=0, patience=20) == "two"


class TestChange:
    def test_gives_up_where_somebody_holds_the_lock(self) -> None:
        cache.add("key.lock", True, 60)
        assert caching.change("key", lambda: "done") is None

    def test_frees_the_lock_also_after_a_failure(self) -> None:
        with pytest.raises(ZeroDivisionError):
            caching.change("key", lambda: 1 // 0)
        assert caching.change("key", lambda: "done") == "done"


def test_a_cache_that_is_down_and_does_not_say_so(settings: Any) -> None:
    settings.CACHES = {"default": {"BACKEND": "tests.caches.Hidden"}}
    assert caching.change("key", lambda: "done") is None
    assert caching.once("key", lambda: "made", seconds=60, patience=3600) == "made"


class TestWithoutACache:
    @pytest.fixture(autouse=True)
    def down(self, settings: Any) -> None:
        settings.CACHES = {"default": {"BACKEND": "tests.caches.Down"}}

    def test_nothing_raises(self, caplog: pytest.LogCaptureFixture) -> None:
        assert caching.get("key") is None
        caching.keep("key", 1, 60)
        caching.forget("key")
        assert caching.change("key", lambda: "done") is None
        assert caching.once("key", lambda: "made", seconds=60, patience=0) == "made"
        assert {r.name for r in caplog.records} == {"django_quota.caching"}
