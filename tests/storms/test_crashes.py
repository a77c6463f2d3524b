"""What is left when a process is killed or the database goes away, at each step of a renewal."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from types import SimpleNamespace

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from django_quota.exceptions import ProviderUnavailable
from django_quota.models import QuotaToken
from django_quota.oidc import endpoints
from django_quota.tokens import locking
from django_quota.tokens.access import get_access_token
from django_quota.tokens.leases import SAVE_PATIENCE
from tests.helpers.concurrency import closes_connections, outcome, wait_until
from tests.helpers.databases import every_query
from tests.light_provider import LightProvider
from tests.storms.crew import Crew, make_users

pytestmark = [pytest.mark.storm, pytest.mark.django_db(transaction=True)]

#: More steps than a renewal has; see `crew.deadly`.
STEPS = 40

DROP_CONNECTIONS = {
    "postgresql": """
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
    """,
    "mysql": """
        SELECT id FROM information_schema.processlist
        WHERE db = DATABASE() AND id <> CONNECTION_ID()
    """,
}


def drop_connections() -> None:
    """All but this thread's own."""
    with connection.cursor() as cursor:
        cursor.execute(DROP_CONNECTIONS[connection.vendor])
        if connection.vendor == "mysql":
            for (number,) in cursor.fetchall():
                cursor.execute(f"KILL {number}")


@pytest.mark.parametrize("grace_period", [0, 300])
def test_killed_at_every_step(quota: LightProvider, crew: Crew, grace_period: int) -> None:
    """Whoever asks next gets a token if the old one was not spent, or was saved, or if Quota has a
    grace period; else the word that a new sign-in is needed. Never half a pair."""
    users = make_users(STEPS)
    quota.set(grace_period=grace_period)
    said = []
    for step, user in enumerate(users):
        (died,) = crew.order("die", crew=1, user=user.pk, step=step)
        if not died:
            break
        name = user.username
        spent = quota.counts.sent[f"quota_refresh_{name}.0"] == 1

        left = QuotaToken.objects.get(account__user=user)
        saved = left.access_token.reveal() == f"quota_token_{name}.1"
        generation = "1" if saved else "0"
        assert left.refresh_token.reveal() == f"quota_refresh_{name}.{generation}"

        # It ends by itself in 25 seconds, and whoever waits then leaves the row to it for a while.
        QuotaToken.objects.update(lease_until=timezone.now() - timedelta(seconds=SAVE_PATIENCE + 1))
        got = outcome(partial(get_access_token, user))
        if spent and not saved and not grace_period:
            assert got.startswith("ReauthenticationRequired")
        else:
            assert got == f"quota_token_{name}.1"
        said.append((spent, saved))
    assert not died
    # It was killed before the call, between the call and the save, and after the save.
    assert set(said) == {(False, False), (True, False), (True, True)}


def test_dropped_connections_do_not_lose_a_pair(quota: LightProvider) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("SQLite has no server that could drop one")
    (user,) = make_users(1)
    quota.set(hang=True)

    @closes_connections
    def renew() -> str:
        return get_access_token(user)

    with ThreadPoolExecutor(1) as pool:
        renewal = pool.submit(renew)
        wait_until(lambda: quota.counts.sent)
        drop_connections()
        quota.set(hang=False)
        assert renewal.result() == "quota_token_u0.1"
    row = QuotaToken.objects.get()
    assert row.refresh_token.reveal() == "quota_refresh_u0.1"


@pytest.mark.parametrize("seconds", [50, 70])
def test_a_database_that_is_away_for_a_while_does_not_lose_a_pair(
    quota: LightProvider,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    seconds: int,
) -> None:
    """Every query fails from Quota's answer on, for a minute or so by a clock of our own."""
    (user,) = make_users(1)
    now = 0.0
    answered: list[bool] = []

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    def away(execute: Callable[..., object], *args: object) -> object:
        if answered and now < seconds:
            raise OperationalError("the database is away")
        return execute(*args)

    real = endpoints.refresh

    def refresh(refresh_token: str) -> endpoints.TokenReply:
        answer = real(refresh_token)
        answered.append(True)
        return answer

    monkeypatch.setattr(locking, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: now))
    monkeypatch.setattr(endpoints, "refresh", refresh)
    with every_query(away):
        if seconds < SAVE_PATIENCE:
            assert get_access_token(user) == "quota_token_u0.1"
        else:  # nothing more can be done, but to say so
            with pytest.raises(ProviderUnavailable, match="did not save"):
                get_access_token(user)
            assert "could not be saved: OperationalError" in caplog.text
    assert now >= min(seconds, SAVE_PATIENCE)
