"""However many want a new token, Quota is asked for it once, and everybody gets it."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from django.utils.functional import SimpleLazyObject
from pytest_django.fixtures import Settings

from django_quota.models import QuotaToken
from django_quota.tokens.access import aget_access_token, get_access_token
from django_quota.tokens.renewal import Renewal
from tests.helpers.concurrency import (
    GIVE_UP_AFTER,
    begin_together,
    outcome,
    run_async,
    wait_until,
)
from tests.light_provider import LightProvider
from tests.storms.crew import Crew, make_users, work_for

pytestmark = [pytest.mark.storm, pytest.mark.django_db(transaction=True)]


def sent_by(count: int) -> Counter[str]:
    """What Quota is sent if each of so many users is renewed once."""
    return Counter(f"quota_refresh_u{n}.0" for n in range(count))


def test_64_threads(quota: LightProvider) -> None:
    (user,) = make_users(1)

    got = begin_together(work_for([user], 64))

    assert Counter(got) == {"quota_token_u0.1": 64}
    assert quota.counts.sent == sent_by(1)


def test_processes(quota: LightProvider, crew: Crew) -> None:
    """Eight of eight threads; on SQLite, four of four."""
    (user,) = make_users(1)
    callers, threads = (16, 4) if connection.vendor == "sqlite" else (64, 8)

    got = crew.order("get", users=[user.pk], threads=threads)

    assert Counter(got) == {"quota_token_u0.1": callers}
    assert quota.counts.sent == sent_by(1)


def test_a_dead_owner_is_replaced_by_one_of_64(quota: LightProvider) -> None:
    (user,) = make_users(1)
    QuotaToken.objects.update(lease_owner="killed", lease_until=timezone.now())

    got = begin_together(work_for([user], 64))

    assert Counter(got) == {"quota_token_u0.1": 64}
    assert quota.counts.sent == sent_by(1)


def test_500_tasks(quota: LightProvider) -> None:
    (user,) = make_users(1)

    async def all_of_them() -> list[str]:
        got = await asyncio.gather(*(aget_access_token(user) for _ in range(500)))
        return got

    assert Counter(run_async(all_of_them())) == {"quota_token_u0.1": 500}
    assert quota.counts.sent == sent_by(1)


def test_a_lazy_user_in_a_task(quota: LightProvider) -> None:
    """`request.user` asks the database, which the event loop must not; nor may it build 500
    queries, so all of that is done in a thread."""
    (user,) = make_users(1)
    lazy = SimpleLazyObject(lambda: type(user).objects.get())

    async def task() -> str:
        token = await aget_access_token(lazy)
        return token

    assert run_async(task()) == "quota_token_u0.1"


def test_ten_users_do_not_wait_for_each_other(quota: LightProvider) -> None:
    """The provider answers none of them before it has been asked by all ten."""
    users = make_users(10)
    quota.set(together=10)

    got = begin_together(work_for(users, 64))

    assert set(got) == {f"quota_token_u{n}.1" for n in range(10)}
    assert quota.counts.sent == sent_by(10)


def test_in_the_leeway_nobody_waits(quota: LightProvider, settings: Settings) -> None:
    """63 of 64 are done while Quota has not answered yet."""
    settings.QUOTA_TIMEOUT, settings.QUOTA_DEADLINE = (5, 10 * GIVE_UP_AFTER), 10 * GIVE_UP_AFTER
    (user,) = make_users(1, expire_in=20)
    quota.set(hang=True)
    done = threading.Semaphore(0)

    def work() -> str:
        token = outcome(lambda: get_access_token(user))
        done.release()
        return token

    def answer_at_last() -> str:
        for _ in range(63):
            assert done.acquire(timeout=GIVE_UP_AFTER)
        quota.set(hang=False)
        return "answered"

    got = begin_together([*[work] * 64, answer_at_last])

    assert Counter(got) == {"quota_token_u0.0": 63, "quota_token_u0.1": 1, "answered": 1}
    assert quota.counts.sent == sent_by(1)


def test_while_quota_hangs_nobody_queues_up(quota: LightProvider, settings: Settings) -> None:
    """The first time-out is everybody's answer: waiting in line would be a minute."""
    settings.QUOTA_TIMEOUT = (1, 1)
    (user,) = make_users(1)
    quota.set(hang=True)

    got = begin_together(work_for([user], 64))

    assert {said.partition(":")[0] for said in got} == {"ProviderUnavailable"}
    assert quota.counts.sent.total() <= 2
    assert not QuotaToken.objects.get().needs_sign_in


def test_whoever_waits_takes_no_lock(quota: LightProvider) -> None:
    """Or 64 of them would keep the lock from each other, and SQLite from everybody."""
    (user,) = make_users(1)
    quota.set(hang=True)
    seen = QuotaToken.objects.with_identity().get()
    statements: list[str] = []

    def spy(execute: Callable[..., Any], sql: str, *args: Any) -> Any:
        statements.append(sql)
        return execute(sql, *args)

    def waiting() -> str:
        """As in another process: in this one it would wait for the first."""
        wait_until(lambda: quota.counts.sent)
        with connection.execute_wrapper(spy):
            return Renewal(seen, None, since=timezone.now()).run()

    def answer_at_last() -> str:
        wait_until(lambda: len(statements) >= 5)
        quota.set(hang=False)
        return "answered"

    begin_together([lambda: get_access_token(user), waiting, answer_at_last])

    assert not [sql for sql in statements if "UPDATE" in sql]


def test_strict_reuse_detection_has_nothing_to_report(quota: LightProvider, crew: Crew) -> None:
    users = [user.pk for user in make_users(16, expire_in=3600)]

    for _ in range(50):
        if quota.counts.outcomes["renewed"] >= 200:
            break
        assert crew.order("refuse", crew=4, users=users, threads=2, times=10) == []

    assert set(quota.counts.outcomes) == {"renewed"}
    assert quota.counts.outcomes["renewed"] >= 200
    assert set(quota.counts.sent.values()) == {1}
