"""The revocation queue: worked off, put off, and wiped at the end of its time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.db import connection
from django.db.models.signals import pre_delete
from django.utils import timezone

from django_quota import provider, revocation
from django_quota.models import REVOCATION_PERIOD, PendingRevocation
from django_quota.revocation import Pruned, prune
from tests.light_provider import LightProvider

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def quota(settings: Any) -> Iterator[LightProvider]:
    with LightProvider() as live:
        settings.QUOTA_BASE_URL = live.origin
        yield live


def dropped(*names: str, age: timedelta = timedelta(0)) -> None:
    """The tokens of these were dropped so long ago."""
    for name in names:
        pending = PendingRevocation.objects.create(token=f"quota_refresh_{name}.0")
        PendingRevocation.objects.filter(pk=pending.pk).update(expires_at=pending.expires_at - age)


def waiting() -> list[str]:
    return sorted(pending.token for pending in PendingRevocation.objects.all())


def test_all_are_revoked_however_many(
    quota: LightProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocation, "BATCH", 2)
    dropped("a", "b", "c", "d", "e")

    assert prune() == Pruned(revoked=5, wiped=0, left=0, stopped="")
    assert sorted(quota.counts.revoked) == [f"quota_refresh_{name}.0" for name in "abcde"]


def test_those_that_cannot_be_read_keep_no_other_from_its_turn(
    quota: LightProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one run: the exit code says that Quota was told of all that it can be told."""
    monkeypatch.setattr(revocation, "BATCH", 2)
    dropped("a", "b", "c", "d")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE django_quota_pendingrevocation SET token = 'garbage'")
    dropped("e")

    done = prune()

    assert (done.revoked, done.left) == (1, 4)
    assert quota.counts.revoked == {"quota_refresh_e.0": 1}


def test_one_that_is_new_is_kept_for_thirty_days() -> None:
    dropped("a")
    left = PendingRevocation.objects.get().expires_at - timezone.now()
    assert timedelta(days=29, hours=23) < left <= REVOCATION_PERIOD == timedelta(days=30)


def test_while_quota_is_away_they_wait_and_are_wiped_in_the_end(settings: Any) -> None:
    settings.QUOTA_BASE_URL = "http://127.0.0.1:9"
    dropped("old", "older", age=timedelta(days=31))
    dropped("new", age=timedelta(days=29))

    done = prune()

    assert (done.revoked, done.wiped, done.left) == (0, 2, 1)
    assert "Quota cannot be reached" in done.stopped
    assert waiting() == ["quota_refresh_new.0"]


def test_one_at_its_end_is_revoked_while_there_is_a_chance(quota: LightProvider) -> None:
    dropped("old", age=timedelta(days=31))
    assert prune() == Pruned(revoked=1, wiped=0, left=0, stopped="")


def test_one_that_fails_keeps_no_other_from_its_turn(
    quota: LightProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped("bad", "good")
    real = provider.revoke

    def failing(token: str, hint: str) -> None:
        if "bad" in token:
            raise provider.ProviderUnavailable("not this one")
        real(token, hint)

    monkeypatch.setattr(provider, "revoke", failing)

    assert prune() == Pruned(revoked=0, wiped=0, left=2, stopped="not this one")
    assert prune() == Pruned(revoked=1, wiped=0, left=1, stopped="not this one")
    assert waiting() == ["quota_refresh_bad.0"]


def test_one_that_cannot_be_decrypted_is_kept_until_its_end(quota: LightProvider) -> None:
    dropped("a")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE django_quota_pendingrevocation SET token = 'spoilt'")
    dropped("b")

    assert prune() == Pruned(revoked=1, wiped=0, left=1, stopped="")
    with connection.cursor() as cursor:
        cursor.execute("SELECT token FROM django_quota_pendingrevocation")
        assert cursor.fetchone() == ("spoilt",)
    PendingRevocation.objects.update(expires_at=timezone.now())
    assert prune() == Pruned(revoked=0, wiped=1, left=0, stopped="")
    assert list(quota.counts.revoked) == ["quota_refresh_b.0"]


def test_one_that_another_process_has_just_revoked(
    quota: LightProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped("a", "b")
    real = provider.revoke

    def both(token: str, hint: str) -> None:
        real(token, hint)
        PendingRevocation.objects.all().delete()

    monkeypatch.setattr(provider, "revoke", both)

    assert prune() == Pruned(revoked=1, wiped=0, left=0, stopped="")
    assert list(quota.counts.revoked) == ["quota_refresh_a.0"]


def test_one_that_cannot_be_decrypted_is_wiped_in_a_project_that_watches_deletions(
    quota: LightProvider, settings: Any
) -> None:
    """A receiver without a sender, as audit logs connect, makes Django load what it deletes."""

    def receiver(**kwargs: Any) -> None:
        pass

    dropped("u0", age=REVOCATION_PERIOD)
    settings.FIELD_ENCRYPTION_KEY = Fernet.generate_key().decode()
    pre_delete.connect(receiver)
    try:
        assert prune() == Pruned(revoked=0, wiped=1, left=0, stopped="")
    finally:
        pre_delete.disconnect(receiver)
