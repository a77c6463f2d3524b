"""The cache as a convenience: no trouble without it."""

from __future__ import annotations

from typing import Any

import pytest

from django_quota.wallet import caching


def test_first_caller_claims_the_key(settings: Any) -> None:
    assert caching.claim("key", 60)
    assert not caching.claim("key", 60)
    assert not caching.claim("key", 60, if_down=True)
    caching.forget("key")
    assert caching.claim("key", 60)


@pytest.mark.parametrize("cache", ["Down", "Hidden"])
def test_cache_that_is_down_raises_nothing(settings: Any, cache: str) -> None:
    """One says so by an error, the other does not say so."""
    settings.CACHES = {"default": {"BACKEND": f"tests.caches.{cache}"}}
    assert caching.get("key") is None
    caching.keep("key", 1, 60)
    caching.forget("key")
    assert not caching.claim("key", 60)
    assert caching.claim("key", 60, if_down=True)


def test_cache_that_is_down_is_logged(settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    settings.CACHES = {"default": {"BACKEND": "tests.caches.Down"}}
    caching.get("key")
    assert {record.name for record in caplog.records} == {"django_quota.caching"}
