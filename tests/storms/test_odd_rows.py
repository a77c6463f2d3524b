"""Clocks that step, rows that an older version half wrote, and replies of a provider apart."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from django_quota.exceptions import ReauthenticationRequired
from django_quota.models import PendingRevocation, QuotaToken
from django_quota.oidc import endpoints
from django_quota.tokens.access import get_access_token
from tests.light_provider import LightProvider
from tests.storms.crew import make_users

pytestmark = [pytest.mark.storm, pytest.mark.django_db(transaction=True)]

HOUR = timedelta(hours=1)


@pytest.fixture
def user() -> Any:
    return make_users(1)[0]


def step_clock(monkeypatch: pytest.MonkeyPatch, by: timedelta) -> None:
    now = timezone.now
    monkeypatch.setattr(timezone, "now", lambda: now() + by)


class TestClock:
    @pytest.mark.parametrize("by", [-HOUR, HOUR])
    def test_host_whose_clock_is_set(
        self, user: Any, quota: LightProvider, monkeypatch: pytest.MonkeyPatch, by: timedelta
    ) -> None:
        """The time is the database's."""
        token = get_access_token(user)
        step_clock(monkeypatch, by)

        assert get_access_token(user) == token
        assert get_access_token(user, rejected=token) == "quota_token_u0.2"
        assert get_access_token(user) == "quota_token_u0.2"

    @pytest.mark.parametrize("by", [-HOUR, HOUR])
    def test_during_a_renewal(
        self, user: Any, quota: LightProvider, monkeypatch: pytest.MonkeyPatch, by: timedelta
    ) -> None:
        real = endpoints.refresh

        def stepping(refresh_token: str) -> endpoints.TokenReply:
            reply = real(refresh_token)
            step_clock(monkeypatch, by)
            return reply

        monkeypatch.setattr(endpoints, "refresh", stepping)

        assert get_access_token(user) == get_access_token(user) == "quota_token_u0.1"

    def test_a_failure_of_the_future_is_none(self, user: Any, quota: LightProvider) -> None:
        QuotaToken.objects.update(last_failure="x", last_failure_at=timezone.now() + HOUR)
        assert get_access_token(user) == "quota_token_u0.1"


class TestHalfWritten:
    @pytest.mark.parametrize(
        "columns",
        [
            {"lease_owner": "x"},
            {"lease_owner": "x", "lease_until": datetime(9999, 12, 31, tzinfo=UTC)},
            {"lease_until": datetime(1970, 1, 2, tzinfo=UTC)},
            {"expires_at": datetime(1970, 1, 2, tzinfo=UTC)},
            {"last_failure": "x"},
            {"last_failure_at": datetime(1970, 1, 2, tzinfo=UTC)},
            {"last_failure_at": datetime(9999, 12, 31, tzinfo=UTC)},
            {"access_token": ""},
            {"access_token": "", "expires_at": datetime(9999, 12, 31, tzinfo=UTC)},
            {"status": ""},
            {"version": 2**31 - 1},
            {"scope": ""},
        ],
        ids=lambda columns: "-".join(columns),
    )
    def test_a_renewal_mends_it(
        self, user: Any, quota: LightProvider, columns: dict[str, Any]
    ) -> None:
        QuotaToken.objects.update(**columns)

        assert get_access_token(user) == "quota_token_u0.1"

        row = QuotaToken.objects.get()
        assert (row.lease_owner, row.lease_until, row.last_failure) == ("", None, "")
        assert row.status == QuotaToken.Status.ACTIVE
        left = row.expires_at - timezone.now()
        assert timedelta(seconds=3000) < left < timedelta(seconds=3700)

    def test_no_refresh_token_and_a_lease_that_nobody_has(
        self, user: Any, quota: LightProvider
    ) -> None:
        QuotaToken.objects.update(refresh_token="", lease_owner="x")
        with pytest.raises(ReauthenticationRequired, match="no refresh token"):
            get_access_token(user)
        assert not quota.counts.sent


def test_a_provider_that_does_not_rotate(
    user: Any, quota: LightProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reply names the same refresh token again: kept, and never revoked."""
    real = endpoints.refresh
    monkeypatch.setattr(
        endpoints, "refresh", lambda token: replace(real(token), refresh_token=token)
    )

    assert get_access_token(user) == "quota_token_u0.1"

    row = QuotaToken.objects.get()
    assert row.refresh_token.reveal() == "quota_refresh_u0.0"
    assert not PendingRevocation.objects.exists()


@pytest.mark.parametrize("seconds", [1, 30, 10**9])
def test_an_absurd_expires_in_costs_one_call_a_question_at_most(
    user: Any, quota: LightProvider, seconds: int
) -> None:
    quota.set(expires_in=seconds)
    got = [get_access_token(user) for _ in range(3)]
    assert got == [f"quota_token_u0.{n}" for n in ((1, 2, 3) if seconds <= 30 else (1, 1, 1))]
