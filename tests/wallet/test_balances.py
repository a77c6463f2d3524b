"""The balance that is shown, of several that are known, and for how long."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.cache import cache

from django_quota.wallet import caching
from django_quota.wallet.balances import (
    MIN_SECONDS_APART,
    Balance,
    _balance_key,
    _key,
    begin_request,
    forget_balance,
    keep_balance,
    keep_balance_after_call,
    kept_balance,
)
from tests.helpers.balances import cache_balance

pytestmark = pytest.mark.django_db

USER = User(pk=7)


def credits() -> int | None:
    kept = kept_balance(USER)
    assert kept is not None
    return kept.credits


def after_call(credits: int, arrived_at: float | None = None) -> None:
    """Record a call that has left this balance, by default as soon as its reply has arrived."""
    arrived_at = time.time() if arrived_at is None else arrived_at
    keep_balance_after_call(USER, Balance(credits=credits), arrived_at=arrived_at)


class Clock:
    """The time of this process and of its cache."""

    def __init__(self) -> None:
        self.now = time.time()

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", lambda: clock.now)
    return clock


class TestWhichIsShown:
    def test_answer_of_quota(self) -> None:
        cache_balance(USER, 2)
        cache_balance(USER, 3)
        assert credits() == 3

    def test_reply_to_a_call_replaces_an_answer_to_an_earlier_request(self) -> None:
        cache_balance(USER, 9)
        after_call(8)
        assert credits() == 8

    def test_answer_to_a_request_before_a_call_is_not_shown_after_it(self) -> None:
        """Quota was slow, and nobody knows whether it looked before the call or after."""
        version = begin_request(USER)
        after_call(8)
        keep_balance(version, Balance(credits=9))
        assert credits() == 8

    def test_answer_to_a_request_before_the_wallet_changed_is_not_shown(self) -> None:
        version = begin_request(USER)
        forget_balance(USER)
        keep_balance(version, Balance(credits=1))
        assert kept_balance(USER) is None
        cache_balance(USER, 2)
        assert credits() == 2

    @pytest.mark.parametrize("first", [8, 9])
    def test_of_two_calls_that_end_together_neither_until_quota_is_asked(self, first: int) -> None:
        """Whichever is recorded first, and whatever their times of arrival say."""
        now = time.time()
        after_call(first, now)
        after_call(17 - first, now - 0.001)
        assert kept_balance(USER) is None
        cache_balance(USER, 8)
        assert credits() == 8

    def test_of_many_calls_at_once_none_until_quota_is_asked(self) -> None:
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(after_call, range(64)))
        assert kept_balance(USER) is None

    def test_call_that_is_recorded_while_another_one_is_hides_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = caching.claim

        def claim_after_another(key: str, seconds: float) -> bool:
            monkeypatch.setattr(caching, "claim", real)
            after_call(9)
            return real(key, seconds)

        monkeypatch.setattr(caching, "claim", claim_after_another)
        after_call(8)
        assert kept_balance(USER) is None

    def test_calls_one_after_the_other_are_shown(self, clock: Clock) -> None:
        for balance in (9, 8, -1):
            after_call(balance)
            assert credits() == balance
            clock.advance(2 * MIN_SECONDS_APART)

    @pytest.mark.parametrize("learn", [after_call, partial(cache_balance, USER)])
    def test_call_that_leaves_more_than_is_known_is_not_shown(
        self, clock: Clock, learn: Any
    ) -> None:
        """A call only takes credits. Its reply waited to be read, as the last chunk of a stream
        does while the reader is slow; or credits were bought, and Quota will say so."""
        learn(5)
        clock.advance(2 * MIN_SECONDS_APART)
        after_call(9)
        assert kept_balance(USER) is None

    def test_third_call_soon_after_the_second_is_not_shown_either(self, clock: Clock) -> None:
        """The second may be the newer one, although the first was long ago."""
        after_call(9)
        clock.advance(2 * MIN_SECONDS_APART - 0.1)
        after_call(8)
        clock.advance(0.2)
        after_call(7)
        assert kept_balance(USER) is None

    def test_call_that_is_recorded_late_is_not_shown(self) -> None:
        after_call(9, time.time() - MIN_SECONDS_APART)
        assert kept_balance(USER) is None

    @pytest.mark.parametrize("news", [forget_balance, begin_request])
    def test_reply_that_arrived_before_the_last_news_is_not_shown(self, news: Any) -> None:
        arrived_at = time.time() - 0.001
        news(USER)
        after_call(9, arrived_at)
        assert kept_balance(USER) is None

    def test_clock_that_was_set_back_hides_no_answer(self, clock: Clock) -> None:
        cache_balance(USER, 9)
        clock.advance(-3600)
        after_call(8)
        assert kept_balance(USER) is None
        cache_balance(USER, 8)
        assert credits() == 8

    def test_answer_that_took_too_long_is_not_shown(self) -> None:
        keep_balance(begin_request(USER), Balance(credits=1), age=31)
        assert kept_balance(USER) is None

    @pytest.mark.parametrize("junk", ["x", 7, [], {"credits": "many"}, {"credits": 1.5}, {}])
    def test_what_else_is_in_the_cache_is_no_balance(self, junk: Any) -> None:
        cache.set(_balance_key(begin_request(USER)), junk)
        assert kept_balance(USER) is None
        cache.set(_key(USER), junk)
        assert kept_balance(USER) is None
        cache_balance(USER, 1)
        assert credits() == 1

    def test_no_time_to_live_means_no_cache(self, settings: Any) -> None:
        settings.QUOTA_BALANCE_TTL = 0
        cache_balance(USER, 1)
        assert kept_balance(USER) is None

    def test_each_users_own(self) -> None:
        cache_balance(USER, 1)
        assert kept_balance(User(pk=8)) is None
        assert kept_balance(AnonymousUser()) is None


@pytest.mark.parametrize(
    ("credits", "state"),
    [(None, "no_wallet"), (-1, "low"), (0, "low"), (99_999, "low"), (100_000, "available")],
)
def test_state(credits: int | None, state: str) -> None:
    assert Balance(credits=credits).state == state
