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

from django_quota.exceptions import ConfigurationError, ProviderUnavailable, QuotaError, RateLimited
from django_quota.models import REVOCATION_PERIOD, PendingRevocation
from django_quota.oidc import endpoints
from django_quota.tokens import revocation
from django_quota.tokens.revocation import OUTAGE, Pruned, prune
from tests.light_provider import LightProvider
from tests.storms.crew import make_users
from tests.tiny_server import TinyServer, json_answer

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
    return sorted(pending.token.reveal() for pending in PendingRevocation.objects.all())


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


def test_where_quota_offers_no_revocation_nothing_is_sent_and_they_wait(settings: Any) -> None:
    """Quota may offer it later; without one, they are wiped at their end date as ever."""
    with TinyServer() as server:
        settings.QUOTA_BASE_URL = server.origin
        server.on("/.well-known/openid-configuration", json_answer({"issuer": server.origin}))
        dropped("old", age=timedelta(days=31))
        dropped("new", "newer", age=timedelta(days=29))

        done = prune()

        assert (done.revoked, done.wiped, done.left, done.failed) == (0, 1, 2, 0)
        assert not done.misconfigured
        assert "names no revocation_endpoint" in done.stopped
        assert [seen.method for seen in server.requests] == ["GET"]
        assert set(PendingRevocation.objects.values_list("attempts", flat=True)) == {0}


def test_one_at_its_end_is_revoked_while_there_is_a_chance(quota: LightProvider) -> None:
    dropped("old", age=timedelta(days=31))
    assert prune() == Pruned(revoked=1, wiped=0, left=0, stopped="")


def refusing(monkeypatch: pytest.MonkeyPatch, error: QuotaError) -> list[str]:
    """Quota answers `error` to tokens with "bad" in their name. The tokens it was asked for."""
    real, asked = endpoints.revoke, []

    def revoke(token: str, hint: str) -> bool:
        asked.append(token)
        if "bad" in token:
            raise error
        return real(token, hint)

    monkeypatch.setattr(endpoints, "revoke", revoke)
    return asked


def test_one_that_fails_does_not_end_the_run(
    quota: LightProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped("bad", "good", "better")
    refusing(monkeypatch, ProviderUnavailable("not this one"))

    assert prune() == Pruned(revoked=2, wiped=0, left=1, stopped="", failed=1)
    assert waiting() == ["quota_refresh_bad.0"]


def test_one_that_fails_is_tried_once_a_run_and_then_last(
    quota: LightProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped("bad")
    asked = refusing(monkeypatch, ProviderUnavailable("not this one"))
    prune()
    dropped("good")
    prune()
    assert asked == [f"quota_refresh_{name}.0" for name in ("bad", "good", "bad")]


def test_an_outage_ends_the_run_however_many_have_succeeded_before(
    quota: LightProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped("good", *(f"bad{number}" for number in range(9)))
    asked = refusing(monkeypatch, ProviderUnavailable("away"))

    done = prune()

    assert (done.revoked, done.failed, done.left, done.stopped) == (1, OUTAGE, 9, "away")
    assert len(asked) == 1 + OUTAGE


def test_failures_that_do_not_follow_each_other_are_no_outage(
    quota: LightProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(OUTAGE + 1):
        dropped(f"bad{number}", f"good{number}")
    refusing(monkeypatch, ProviderUnavailable("not this one"))
    done = prune()
    assert (done.revoked, done.failed, done.stopped) == (OUTAGE + 1, OUTAGE + 1, "")


@pytest.mark.parametrize(
    "error",
    [
        RateLimited("slower"),
        ConfigurationError("wrong secret"),
        ProviderUnavailable("unreachable", request_sent=False),
    ],
)
def test_what_would_meet_all_of_them_ends_the_run_at_once(
    quota: LightProvider, monkeypatch: pytest.MonkeyPatch, error: QuotaError
) -> None:
    dropped("bad", "good")
    asked = refusing(monkeypatch, error)

    done = prune()

    assert (len(asked), done.left, done.stopped) == (1, 2, str(error))
    assert done.misconfigured is isinstance(error, ConfigurationError)


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
    real = endpoints.revoke

    def both(token: str, hint: str) -> bool:
        revoked = real(token, hint)
        PendingRevocation.objects.all().delete()
        return revoked

    monkeypatch.setattr(endpoints, "revoke", both)

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


def test_token_whose_key_was_missing_is_revoked_once_it_is_back(
    quota: LightProvider, settings: Any
) -> None:
    key = settings.FIELD_ENCRYPTION_KEY
    (user,) = make_users(1)
    settings.FIELD_ENCRYPTION_KEY = Fernet.generate_key().decode()
    user.delete()
    assert prune().revoked == 0
    settings.FIELD_ENCRYPTION_KEY = key

    assert prune().revoked == 1
    assert quota.counts.revoked == {"quota_refresh_u0.0": 1}
