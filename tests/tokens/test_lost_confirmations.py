"""What the model of the renewal found (tests/model), against a real database and a real provider.

In each test two things happen to one token row at the same moment, or a COMMIT happens and its
confirmation is lost on the way back: the connection is reset after the database has committed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.conf import settings as django_settings
from django.db import OperationalError
from django.utils import timezone
from pytest_django.fixtures import Settings

from django_quota import accounts, connecting
from django_quota.exceptions import (
    NotConnected,
    ProviderUnavailable,
    ReauthenticationRequired,
    TokenUnreadable,
)
from django_quota.models import PendingRevocation, ProviderAccount, QuotaToken
from django_quota.oidc import endpoints
from django_quota.signals import wallet_disconnected
from django_quota.tokens import access, bulk, endings, locking, single_flight
from django_quota.tokens.reencryption import reencrypt
from django_quota.web import webhook_events
from tests.helpers.concurrency import closes_connections, locked_elsewhere
from tests.helpers.databases import losing_the_confirmation
from tests.helpers.rows import expire, pair, store_tokens, token_reply
from tests.light_provider import LightProvider
from tests.shown import listening
from tests.storms.crew import make_users

pytestmark = pytest.mark.django_db(transaction=True)

SPENT, LIVE = "quota_refresh_u0.0", "quota_refresh_u0.1"


@pytest.fixture
def quota(settings: Settings) -> Iterator[LightProvider]:
    with LightProvider() as live:
        settings.QUOTA_BASE_URL = live.origin
        yield live


@pytest.fixture
def user(quota: LightProvider) -> Any:
    (made,) = make_users(1)
    return made


@pytest.fixture(params=["row not read", "row read"])
def account(user: Any, request: pytest.FixtureRequest) -> ProviderAccount:
    """The account of `user`; a sign-in has read its token row, Connect Wallet has not."""
    QuotaToken.objects.update(updated_at=timezone.now() - timedelta(hours=1))
    found = accounts.find("u0", with_token=request.param == "row read")
    assert found is not None
    return found


def after_the_answer(monkeypatch: pytest.MonkeyPatch, work: Callable[[], Any]) -> None:
    """`work` is done once, when Quota has answered a renewal and before that is saved."""
    real = endpoints.refresh

    def refresh(token: str) -> endpoints.TokenReply:
        monkeypatch.setattr(endpoints, "refresh", real)
        reply = real(token)
        work()
        return reply

    monkeypatch.setattr(endpoints, "refresh", refresh)


def queued() -> list[str]:
    return sorted(pending.token.reveal() for pending in PendingRevocation.objects.all())


def without_refresh_token() -> endpoints.TokenReply:
    return replace(token_reply("again"), refresh_token=None)


class TestSignInDuringARenewal:
    def test_without_a_refresh_token_it_leaves_room_for_the_successor(
        self, user: Any, account: ProviderAccount, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        after_the_answer(monkeypatch, lambda: store_tokens(account, without_refresh_token()))

        got = access.get_access_token(user)

        assert got == "quota_token_again.0"
        assert pair() == ("quota_token_again.0", LIVE)
        assert queued() == []

    def test_without_a_refresh_token_it_leaves_the_lease(
        self, user: Any, account: ProviderAccount, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else the next caller would spend the refresh token a second time."""
        seen: list[str] = []

        def work() -> None:
            store_tokens(account, without_refresh_token())
            seen.append(QuotaToken.objects.get().lease_owner)

        after_the_answer(monkeypatch, work)
        access.get_access_token(user)

        assert seen != [""]
        assert QuotaToken.objects.get().lease_owner == ""

    def test_its_access_token_outlives_a_refusal_of_the_older_refresh_token(
        self, user: Any, account: ProviderAccount, quota: LightProvider, monkeypatch: Any
    ) -> None:
        quota.counts.sent.clear()
        access.renew(account)  # so that the first pair of u0 is spent
        QuotaToken.objects.all().update(refresh_token=_sealed(SPENT))
        expire()
        real = endpoints.refresh

        def refresh(token: str) -> endpoints.TokenReply:
            store_tokens(account, without_refresh_token())
            return real(token)

        monkeypatch.setattr(endpoints, "refresh", refresh)

        assert access.get_access_token(user) == "quota_token_again.0"
        row = QuotaToken.objects.get()
        assert not row.needs_sign_in
        assert row.lease_owner == ""

    def test_with_a_refresh_token_it_wins_and_the_renewed_one_is_given_back(
        self, user: Any, account: ProviderAccount, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        after_the_answer(monkeypatch, lambda: store_tokens(account, token_reply("again")))

        assert access.get_access_token(user) == "quota_token_again.0"
        assert queued() == [SPENT, LIVE]


def _sealed(secret: str) -> Any:
    row = QuotaToken(refresh_token=secret)
    return row.refresh_token


class TestLostConfirmation:
    def test_sign_in_is_not_written_over_its_own_successor(
        self, user: Any, account: ProviderAccount
    ) -> None:
        with losing_the_confirmation(lambda: access.renew(account)):
            store_tokens(account, token_reply("again"))

        assert pair() == ("quota_token_again.1", "quota_refresh_again.1")
        assert queued() == [SPENT]

    def test_sign_in_without_a_refresh_token_is_not_written_twice(
        self, user: Any, account: ProviderAccount
    ) -> None:
        with losing_the_confirmation(lambda: access.renew(account)):
            store_tokens(account, without_refresh_token())

        assert pair() == ("quota_token_u0.1", LIVE)
        assert queued() == []

    def test_sign_in_does_not_undo_a_disconnect(self, user: Any, account: ProviderAccount) -> None:
        def disconnect() -> None:
            connecting.disconnect(user)

        with pytest.raises(NotConnected), losing_the_confirmation(disconnect):
            store_tokens(account, token_reply("again"))

        assert not QuotaToken.objects.exists()
        assert set(queued()) == {SPENT, "quota_refresh_again.0"}

    def test_later_sign_in_is_not_overwritten(self, user: Any, account: ProviderAccount) -> None:
        with losing_the_confirmation(lambda: store_tokens(account, token_reply("later"))):
            store_tokens(account, token_reply("again"))

        assert pair()[1] == "quota_refresh_later.0"
        assert set(queued()) == {SPENT, "quota_refresh_again.0"}

    def test_pair_that_may_be_stored_is_not_revoked(
        self, user: Any, account: ProviderAccount, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The database stays away after the commit, so nobody can look."""
        monkeypatch.setattr(locking, "LOCK_WAIT", 0.1)
        revoked: list[str] = []
        monkeypatch.setattr(endpoints, "revoke", lambda token, hint: revoked.append(token))

        def away(*arguments: Any, **options: Any) -> Any:
            raise OperationalError("the database is away")

        def go() -> None:
            monkeypatch.setattr(locking, "locked", away)

        with pytest.raises(ProviderUnavailable), losing_the_confirmation(go):
            store_tokens(account, token_reply("again"))

        assert pair()[1] == "quota_refresh_again.0"
        assert (queued(), revoked) == ([SPENT], [])

    def test_claim_of_bulk_work_is_its_own(self, user: Any, quota: LightProvider) -> None:
        with losing_the_confirmation():
            done = bulk.refresh_expiring(timedelta(minutes=10))

        assert (done.renewed, done.failed) == (1, 0)
        assert quota.counts.sent[SPENT] == 1

    def test_claim_in_the_leeway_is_its_own(self, user: Any, quota: LightProvider) -> None:
        expire(10)

        with losing_the_confirmation():
            got = access.get_access_token(user)

        assert got == "quota_token_u0.1"
        assert quota.counts.sent[SPENT] == 1

    def test_renewed_pair_is_saved_once(self, user: Any) -> None:
        with losing_the_confirmation(of=2):
            assert access.get_access_token(user) == "quota_token_u0.1"

        assert pair() == ("quota_token_u0.1", LIVE)
        assert queued() == []

    def test_failure_is_the_one_that_was_noted(self, user: Any, quota: LightProvider) -> None:
        quota.set(fail={"*": 503})

        with losing_the_confirmation(of=2), pytest.raises(ProviderUnavailable) as raised:
            access.get_access_token(user)

        assert "503" in str(raised.value)
        row = QuotaToken.objects.get()
        assert (row.lease_owner, row.last_failure) == ("", "provider_unavailable")

    def test_wipe_of_an_ended_grant_tells_the_project(
        self, user: Any, account: ProviderAccount, quota: LightProvider
    ) -> None:
        quota.set(fail={})
        access.renew(account)
        QuotaToken.objects.update(
            refresh_token=_sealed(SPENT), updated_at=timezone.now() - timedelta(hours=1)
        )
        # The claim, the note of the refusal, the wipe.
        with listening(wallet_disconnected) as heard, losing_the_confirmation(of=3):
            webhook_events._user_disconnected(_event(), user)

        assert not QuotaToken.objects.exists()
        assert len(heard) == 1

    def test_wipe_that_comes_after_a_new_sign_in_tells_nobody(
        self, user: Any, account: ProviderAccount, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The first attempt is rolled back, as after a deadlock; then the user signs in again."""
        row = QuotaToken.objects.get()
        endings.require_sign_in(QuotaToken.objects.with_identity().get(), "ended")

        def fail(*args: Any, **kwargs: Any) -> None:
            monkeypatch.undo()
            monkeypatch.setattr("django_quota.tokens.locking.time.sleep", sign_in)
            raise OperationalError("deadlock detected")

        def sign_in(seconds: float) -> None:
            monkeypatch.undo()
            store_tokens(account, token_reply("again"))

        monkeypatch.setattr(QuotaToken, "delete", fail)
        with listening(wallet_disconnected) as heard:
            connecting.wipe_tokens(user, grant=row.grant)

        assert pair() == ("quota_token_again.0", "quota_refresh_again.0")
        assert heard == []


def _event() -> Any:
    return SimpleNamespace(created_at=timezone.now(), event_id="evt_1", data={})


class TestDisconnectAtQuota:
    def test_save_of_an_older_renewal_is_no_proof_of_life(
        self, user: Any, account: ProviderAccount, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Quota answers a renewal, the person disconnects there, and then the pair is saved."""
        answered, looked = Event(), Event()

        def wait() -> None:
            answered.set()
            assert looked.wait(30)

        after_the_answer(monkeypatch, wait)
        real = single_flight.renewals.start
        with ThreadPoolExecutor(1) as pool:
            late = pool.submit(closes_connections(access.get_access_token), user)
            assert answered.wait(30)
            with pytest.raises(ReauthenticationRequired):
                endpoints.refresh(SPENT)  # sent a second time, it ends the family

            def after_the_look(*arguments: Any, **options: Any) -> Any:
                looked.set()
                late.result(30)
                return real(*arguments, **options)

            monkeypatch.setattr(single_flight.renewals, "start", after_the_look)
            webhook_events._user_disconnected(_event(), user)

        assert not QuotaToken.objects.exists()

    def test_unreadable_pair_is_not_wiped(
        self, user: Any, account: ProviderAccount, settings: Settings
    ) -> None:
        """This host does not have the newest key yet: the event comes again."""
        old = django_settings.FIELD_ENCRYPTION_KEY
        settings.FIELD_ENCRYPTION_KEY = [Fernet.generate_key().decode(), old]
        reencrypt()
        settings.FIELD_ENCRYPTION_KEY = old

        with pytest.raises(TokenUnreadable):
            webhook_events._user_disconnected(_event(), user)

        assert QuotaToken.objects.count() == 1

    def test_access_token_without_a_refresh_token_is_left_alone(
        self, user: Any, account: ProviderAccount
    ) -> None:
        QuotaToken.objects.update(
            refresh_token=_sealed(""), expires_at=timezone.now() + timedelta(hours=1)
        )

        assert access.renew(account) is False
        assert not QuotaToken.objects.get().needs_sign_in


class TestWaitingForALock:
    """An operator or a person who replaces a wallet waits a few seconds for a locked row."""

    @pytest.fixture(autouse=True)
    def impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(locking, "LOCK_WAIT", 0.1)

    def test_replacing_a_wallet(self, user: Any, account: ProviderAccount) -> None:
        _need_row_locks()
        with locked_elsewhere(QuotaToken.objects.get().pk), pytest.raises(ProviderUnavailable):
            connecting.connect(user, external_id="other", issuer="", replaces="u0")

        assert ProviderAccount.objects.get().external_id == "u0"


def _need_row_locks() -> None:
    from django.db import connection

    if connection.vendor == "sqlite":
        pytest.skip("SQLite has no row locks")
