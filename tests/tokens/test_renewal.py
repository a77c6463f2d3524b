"""What is decided about a token row, and a renewal's claim."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from django_quota.exceptions import (
    NotConnected,
    ProviderUnavailable,
    ReauthenticationRequired,
    RefreshRefused,
)
from django_quota.models import QuotaToken
from django_quota.oidc import endpoints
from django_quota.tokens import clock, decisions, leases, locking, renewal
from django_quota.tokens.clock import Clock
from django_quota.tokens.decisions import GoOnWith, Renew, Wait, decide
from django_quota.tokens.leases import Lease, Phase
from django_quota.tokens.lookup import token_row_again
from django_quota.tokens.renewal import Renewal
from tests.helpers.databases import statements
from tests.helpers.rows import make_token, pair
from tests.light_provider import LightProvider
from tests.storms.crew import make_users


@pytest.fixture
def quota(settings: Any) -> Any:
    with LightProvider() as live:
        settings.QUOTA_BASE_URL = live.origin
        yield live


NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
OLD = GoOnWith("old")


def at(seconds: float | None) -> Any:
    return None if seconds is None else NOW + timedelta(seconds=seconds)


def row(
    *,
    expires: float = -60,
    access: str = "old",
    refresh: str = "refresh",
    lease: float | None = None,
    owner: str = "other",
    grace: bool = False,
    failed: float | None = None,
) -> QuotaToken:
    """A row whose moments are seconds from NOW."""
    values: dict[str, Any] = {"lease_in_grace": grace}
    return QuotaToken(
        access_token=access,
        refresh_token=refresh,
        expires_at=at(expires),
        lease_owner="" if lease is None else owner,
        lease_until=at(lease),
        last_failure_at=at(failed),
        **values,
    )


def decided(of: QuotaToken | None, *, rejected: str | None = None, waited: float = 0) -> Any:
    since = NOW - timedelta(seconds=2)
    return decide(of, me="me", rejected=rejected, since=since, now=NOW, waited=waited)


class TestDecide:
    @pytest.mark.parametrize(
        ("of", "decision"),
        [
            (row(expires=60), OLD),
            (row(expires=20), Renew()),
            (row(expires=-1), Renew()),
            # Somebody else is renewing it.
            (row(expires=20, lease=10), OLD),
            (row(lease=10), Wait()),
            (row(lease=119), Wait()),
            # One's own lease, whose confirmation was lost.
            (row(expires=20, lease=10, owner="me"), Renew()),
            # A lease that has ended: its owner gets a grace, and then is replaced.
            (row(expires=20, lease=-1), OLD),
            (row(lease=-1), Wait(begin_grace=True)),
            (row(lease=1, grace=True), Wait()),
            (row(lease=-1, grace=True), Renew()),
            # After a minute its owner no longer tries to save.
            (row(lease=-61), Renew()),
            # The clock of the database was set back.
            (row(lease=3600), Renew()),
            (row(failed=3600), Renew()),
            # A failure is everybody's answer for five seconds.
            (row(expires=20, failed=-4), OLD),
            (row(failed=-6), Renew()),
            # Nothing to renew it with: the access token is used to its end.
            (row(expires=20, refresh=""), OLD),
            (row(expires=-1, refresh=""), Renew()),
        ],
    )
    def test_row(self, of: QuotaToken, decision: object) -> None:
        assert decided(of) == decision

    @pytest.mark.parametrize(
        ("of", "decision"),
        [
            (row(expires=60), Renew()),
            (row(expires=60, access="renewed meanwhile"), GoOnWith("renewed meanwhile")),
            (row(expires=60, lease=10), Wait()),
            (row(expires=60, refresh=""), Renew()),
        ],
    )
    def test_rejected_token(self, of: QuotaToken, decision: object) -> None:
        assert decided(of, rejected="old") == decision

    def test_grace_begins_again_where_the_lock_was_somebody_elses(self) -> None:
        """Their owner could not have it either."""
        assert decided(row(lease=-1, grace=True), waited=1) == Wait(begin_grace=True)

    def test_failure_since_the_caller_began(self) -> None:
        with pytest.raises(ProviderUnavailable, match="just now"):
            decided(row(failed=-1))

    @pytest.mark.parametrize(
        ("since", "error"), [(-1, RefreshRefused), (-61, ReauthenticationRequired)]
    )
    def test_refusal_without_a_reason_is_believed_after_a_minute(
        self, since: float, error: type[Exception]
    ) -> None:
        of = row(failed=-1)
        of.last_failure = decisions.refusal(at(since))
        with pytest.raises(error):
            decided(of)
        assert decisions.refused_since(of) == at(since)

    def test_no_row(self) -> None:
        with pytest.raises(NotConnected):
            decided(None)

    def test_connection_that_quota_ended(self) -> None:
        of = row(expires=60)
        of.status, of.last_failure = QuotaToken.Status.REAUTHENTICATION_REQUIRED, "invalid_grant"
        with pytest.raises(ReauthenticationRequired) as caught:
            decided(of)
        assert caught.value.provider_code == "invalid_grant"


class TestLease:
    def test_taken_outlives_the_deadline_by_five_seconds(self, settings: Any) -> None:
        settings.QUOTA_DEADLINE = 7
        assert Lease.taken("me", NOW) == Lease("me", at(12))

    def test_grace_is_of_the_same_owner(self) -> None:
        assert Lease("other", at(-1)).with_grace(NOW) == Lease("other", at(2), in_grace=True)

    @pytest.mark.django_db
    @pytest.mark.parametrize(
        ("until", "held", "saving"),
        [(None, 0, 0), (-61, 0, 0), (-1, 0, 1), (1, 1, 1), (119, 1, 1), (3600, 0, 0)],
    )
    def test_query_says_what_the_phase_says(
        self, until: float | None, held: int, saving: int
    ) -> None:
        lease = Lease("other" if until is not None else "", at(until))
        make_token(lease_owner=lease.owner, lease_until=lease.until)

        rows = QuotaToken.objects.all()
        assert rows.filter(Lease.held("lease_until", NOW)).count() == held
        assert rows.filter(Lease.held("lease_until", NOW, saving=True)).count() == saving
        assert (lease.phase("me", NOW) is Phase.HELD) == bool(held)
        assert (lease.phase("me", NOW) is not Phase.FREE) == bool(saving)


@pytest.mark.django_db(transaction=True)
class TestClock:
    def test_it_is_the_databases(self) -> None:
        """Also in the row of a look, and of a lock."""
        seen = make_token()
        looked = token_row_again(QuotaToken.objects.with_identity().get(pk=seen.pk))
        with locking.locked(QuotaToken.objects.with_identity().get(pk=seen.pk)) as held:
            assert held is not None
        assert looked is not None
        for each in (Clock.of("default"), looked.clock, held.clock):
            assert abs(each.now() - timezone.now()) < timedelta(seconds=10)

    @pytest.mark.parametrize("zone", ["Pacific/Chatham", "UTC"])
    @pytest.mark.parametrize("use_tz", [True, False])
    def test_it_is_of_the_kind_that_the_project_stores(
        self, settings: Any, use_tz: bool, zone: str
    ) -> None:
        settings.TIME_ZONE, settings.USE_TZ = zone, use_tz
        assert abs(Clock.of("default").now() - timezone.now()) < timedelta(seconds=10)

    def test_late_answer_is_asked_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of a busy machine; a clock that is far behind would give away the margin of a lease."""
        moments = iter([0, 9, 20, 20.1, 30, 39])
        monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=lambda: next(moments)))
        connection.ensure_connection()  # which asks something itself, on MariaDB
        with statements() as seen:
            reading = Clock.of("default")
        assert (reading.at, len(seen)) == (20.1, 2)

    def test_host_whose_clock_is_off_respects_a_lease(
        self, quota: LightProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_users(1)
        until = Clock.of("default").now() + timedelta(seconds=10)
        QuotaToken.objects.update(lease_owner="other", lease_until=until)
        seen = QuotaToken.objects.with_identity().get()
        for hours in (-1, 1):
            wrong = timezone.now() + timedelta(hours=hours)
            monkeypatch.setattr(timezone, "now", lambda wrong=wrong: wrong)
            assert Renewal(seen, None, since=until).look() == Wait()


@pytest.mark.django_db(transaction=True)
class TestLateOwner:
    """The lease has ended, and its owner may have Quota's answer in hand."""

    @pytest.fixture
    def late(self, quota: LightProvider) -> Renewal:
        make_users(1)
        past = timezone.now() - timedelta(seconds=1)
        QuotaToken.objects.update(lease_owner="late", lease_until=past)
        seen = QuotaToken.objects.with_identity().get()
        return Renewal(seen, None, since=past)

    def test_first_claim_begins_their_grace(self, late: Renewal) -> None:
        assert late.claim() == Wait(begin_grace=True)
        stored = QuotaToken.objects.get()
        assert (stored.lease_owner, stored.lease_in_grace) == ("late", True)
        assert late.look() == Wait()

    def test_after_it_they_are_replaced(self, late: Renewal) -> None:
        late.claim()
        QuotaToken.objects.update(lease_until=timezone.now() - timedelta(seconds=1))

        assert late.claim() == Renew()
        stored = QuotaToken.objects.get()
        assert (stored.lease_owner, stored.lease_in_grace) == (late.me, False)

    def test_lock_of_others_gives_them_their_time_again(
        self, late: Renewal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        late.claim()
        past = timezone.now() - timedelta(seconds=1)
        QuotaToken.objects.update(lease_until=past)
        monkeypatch.setattr(leases, "WAITED", 0)  # the lock was somebody else's until now

        assert late.claim() == Wait(begin_grace=True)
        until = QuotaToken.objects.get().lease_until
        assert until is not None and until > past

    def test_caller_replaces_them_in_the_end(
        self, late: Renewal, quota: LightProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(leases, "GRACE", 0.05)
        assert late.run() == "quota_token_u0.1"
        assert pair() == ("quota_token_u0.1", "quota_refresh_u0.1")

    def test_they_save_in_their_grace(
        self, quota: LightProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Quota has answered them, and then the lease ends before they can save."""
        make_users(1)
        seen = QuotaToken.objects.with_identity().get()
        since = timezone.now()
        real = endpoints.refresh

        def refresh(token: str) -> endpoints.TokenReply:
            reply = real(token)
            QuotaToken.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
            other = Renewal(seen, None, since=since)
            assert other.claim() == Wait(begin_grace=True)
            assert other.look() == Wait()
            return reply

        monkeypatch.setattr(endpoints, "refresh", refresh)
        assert Renewal(seen, None, since=since).run() == "quota_token_u0.1"
        stored = QuotaToken.objects.get()
        assert (stored.lease_owner, stored.lease_until, stored.lease_in_grace) == ("", None, False)


@pytest.mark.django_db(transaction=True)
class TestBounds:
    def test_renewal_does_not_wait_for_ever_for_an_owner(
        self, quota: LightProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_users(1)
        until = timezone.now() + timedelta(seconds=60)
        QuotaToken.objects.update(lease_owner="other", lease_until=until)
        monkeypatch.setattr(leases, "wait_time", lambda: 0.1)
        seen = QuotaToken.objects.with_identity().get()
        with pytest.raises(ProviderUnavailable, match="has not ended"):
            Renewal(seen, None, since=until).run()
        assert not quota.counts.sent

    def test_row_that_stays_locked_after_an_ended_lease(
        self, quota: LightProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_users(1)
        past = timezone.now() - timedelta(seconds=1)
        QuotaToken.objects.update(lease_owner="late", lease_until=past)
        monkeypatch.setattr(leases, "wait_time", lambda: 0.1)
        monkeypatch.setattr(locking, "LOCK_WAIT", 0.1)

        def locked(*args: Any, **options: Any) -> Any:
            raise OperationalError("locked")

        monkeypatch.setattr(locking, "locked", locked)
        seen = QuotaToken.objects.with_identity().get()
        with pytest.raises(ProviderUnavailable, match="has not ended"):
            Renewal(seen, None, since=past).run()

    def test_bulk_work_makes_no_call_on_a_lease_that_took_too_long_to_commit(
        self, quota: LightProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It would end during the call, and others would spend the token again."""
        make_users(1)
        monkeypatch.setattr(renewal.leases, "has_time_to_call", lambda row: False)
        seen = QuotaToken.objects.with_identity().get()
        with pytest.raises(ProviderUnavailable, match="too long") as caught:
            Renewal(seen, None, since=timezone.now()).run_unless_taken(1)
        assert caught.value.request_sent is False
        assert not quota.counts.sent
