"""The balance that is shown: which of several that are told, and for how long."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from random import shuffle
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.cache import cache

from django_quota.wallet.balances import (
    Balance,
    _key,
    forget_balance,
    keep_balance,
    kept_balance,
)

pytestmark = pytest.mark.django_db

USER = User(pk=7)


def credits() -> int | None:
    kept = kept_balance(USER)
    assert kept is not None
    return kept.credits


class TestWhichIsShown:
    def test_the_newer_of_two_in_whatever_order_they_come(self) -> None:
        now = time.time()
        keep_balance(USER, Balance(credits=2), as_of=now - 10)
        keep_balance(USER, Balance(credits=1), as_of=now - 20)
        assert credits() == 2
        keep_balance(USER, Balance(credits=3), as_of=now)
        assert credits() == 3

    def test_of_two_replies_one_after_the_other_the_second(self) -> None:
        """A call takes credits away: no other order explains these two."""
        now = time.time()
        keep_balance(USER, Balance(credits=9), as_of=now - 0.1)
        keep_balance(USER, Balance(credits=8), as_of=now)
        assert credits() == 8

    def test_neither_of_two_replies_at_once_that_seem_to_bring_credits(self) -> None:
        now = time.time()
        keep_balance(USER, Balance(credits=8), as_of=now - 0.1)
        keep_balance(USER, Balance(credits=9), as_of=now)
        assert kept_balance(USER) is None

    def test_neither_of_two_replies_whose_times_say_that_the_wallet_rose(self) -> None:
        """Timed a millisecond apart in the wrong order, and noted in the right one: the higher one,
        which is the older, must not win."""
        now = time.time() - 1
        keep_balance(USER, Balance(credits=9), as_of=now + 0.001, charged=True)
        keep_balance(USER, Balance(credits=8), as_of=now, charged=True)
        assert kept_balance(USER) is None

    def test_of_several_replies_at_once_that_contradict_each_other_none_until_quota_is_asked(
        self,
    ) -> None:
        now = time.time() - 1
        for credits_left, as_of in ((7, now), (9, now + 0.001), (8, now + 0.002)):
            keep_balance(USER, Balance(credits=credits_left), as_of=as_of, charged=True)
        assert kept_balance(USER) is None
        keep_balance(USER, Balance(credits=7), as_of=time.time())
        assert credits() == 7

    def test_neither_of_a_reply_and_what_was_asked_for_long_before_and_answered_after(
        self,
    ) -> None:
        """Quota was slow, and nobody knows whether it has looked before the call or after."""
        now = time.time()
        keep_balance(USER, Balance(credits=9), as_of=now - 1, charged=True)
        keep_balance(USER, Balance(credits=8), as_of=now - 12, until=now)
        assert kept_balance(USER) is None

    def test_of_two_replies_long_after_each_other_the_newer_also_where_it_is_higher(self) -> None:
        """Credits were bought in between."""
        now = time.time()
        keep_balance(USER, Balance(credits=8), as_of=now - 10, charged=True)
        keep_balance(USER, Balance(credits=9), as_of=now, charged=True)
        assert credits() == 9

    @pytest.mark.parametrize("first", ["reply", "webhook"])
    @pytest.mark.parametrize("apart", [-1, 1])
    def test_neither_of_a_reply_and_a_webhook_at_once_that_differ(
        self, first: str, apart: int
    ) -> None:
        """Their times are of two clocks."""
        now = time.time() - 5
        told = [(Balance(credits=5), now, False), (Balance(credits=3), now + apart, True)]
        for balance, as_of, by_webhook in told if first == "reply" else reversed(told):
            keep_balance(USER, balance, as_of=as_of, by_quota_clock=by_webhook)
        assert kept_balance(USER) is None
        keep_balance(USER, Balance(credits=4), as_of=time.time())
        assert credits() == 4

    def test_both_of_a_reply_and_a_webhook_that_agree(self) -> None:
        now = time.time()
        keep_balance(USER, Balance(credits=5), as_of=now - 1)
        keep_balance(USER, Balance(credits=5), as_of=now - 2, by_quota_clock=True)
        assert credits() == 5

    def test_one_that_was_asked_for_before_the_wallet_changed_is_not_kept(self) -> None:
        asked_at = time.time()
        forget_balance(USER)
        keep_balance(USER, Balance(credits=1), as_of=asked_at - 0.001)
        assert kept_balance(USER) is None
        keep_balance(USER, Balance(credits=2), as_of=time.time())
        assert credits() == 2

    def test_a_clock_of_quotas_that_is_ahead_does_not_shut_others_out(self) -> None:
        keep_balance(USER, Balance(credits=2), as_of=time.time() + 3600)
        keep_balance(USER, Balance(credits=1), as_of=time.time())
        assert credits() == 1

    def test_nor_one_of_ours_that_was_set_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = time.time()
        keep_balance(USER, Balance(credits=1), as_of=now)
        monkeypatch.setattr(time, "time", lambda: now - 3600)
        keep_balance(USER, Balance(credits=2), as_of=now - 3600)
        assert credits() == 2

    def test_one_that_is_too_old_to_be_shown_is_not_kept(self) -> None:
        keep_balance(USER, Balance(credits=1), as_of=time.time() - 31)
        assert kept_balance(USER) is None

    def test_of_many_at_once_the_newest(self) -> None:
        """In any order, by any number of threads: what is read and written is one step."""
        now = time.time()
        told = [(-n, now - 20 + n / 10) for n in range(64)]
        shuffle(told)
        with ThreadPoolExecutor(16) as pool:
            list(
                pool.map(
                    lambda one: keep_balance(USER, Balance(credits=one[0]), as_of=one[1]), told
                )
            )
        # Whoever did not get the lock in time has it asked for anew: never an older one.
        assert kept_balance(USER) in (None, Balance(credits=-63))

    def test_without_the_lock_quota_is_asked_again(self) -> None:
        keep_balance(USER, Balance(credits=1), as_of=time.time())
        cache.add(f"{_key(USER)}.lock", True, 60)
        keep_balance(USER, Balance(credits=2), as_of=time.time())
        assert kept_balance(USER) is None

    @pytest.mark.parametrize("junk", ["x", 7, [], {"credits": "many"}, {"credits": 1.5}, {}])
    def test_what_else_is_in_the_cache_is_no_balance(self, junk: Any) -> None:
        cache.set(_key(USER), junk)
        assert kept_balance(USER) is None
        keep_balance(USER, Balance(credits=1), as_of=time.time())
        assert credits() == 1

    def test_no_time_to_live_means_no_cache(self, settings: Any) -> None:
        settings.QUOTA_BALANCE_TTL = 0
        keep_balance(USER, Balance(credits=1), as_of=time.time())
        assert kept_balance(USER) is None

    def test_each_users_own(self) -> None:
        keep_balance(USER, Balance(credits=1), as_of=time.time())
        assert kept_balance(User(pk=8)) is None
        assert kept_balance(AnonymousUser()) is None


@pytest.mark.parametrize(
    ("credits", "state"),
    [(None, "no_wallet"), (-1, "low"), (0, "low"), (99_999, "low"), (100_000, "available")],
)
def test_state(credits: int | None, state: str) -> None:
    assert Balance(credits=credits).state == state
