"""Tokens: stored, renewed exactly once, revoked. Calls are counted at the sandbox."""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import F
from django.utils import timezone

from django_quota import connecting, fields
from django_quota.exceptions import (
    ConfigurationError,
    NotConnected,
    ProviderUnavailable,
    ReauthenticationRequired,
    RefreshImpossibleHere,
    RefreshRefused,
    TokenUnreadable,
)
from django_quota.models import PendingRevocation, ProviderAccount, QuotaToken
from django_quota.oidc import endpoints
from django_quota.oidc.time_limit import within
from django_quota.tokens import (
    access,
    decisions,
    leases,
    locking,
    renewal,
    revocation,
    single_flight,
    storing,
)
from tests.helpers import programs
from tests.helpers.concurrency import (
    begin_together,
    closes_connections,
    locked_elsewhere,
    run_async,
    wait_until,
)
from tests.helpers.rows import expire, pair, store_tokens
from tests.sandbox_client import Person, Sandbox

pytestmark = pytest.mark.django_db(transaction=True)

RENEWAL = ["POST /oauth/token"]
NEW_PAIR = endpoints.TokenReply(
    access_token="quota_token_new",
    refresh_token="quota_refresh_new",
    id_token=None,
    expires_in=3600,
    scope=None,
)


def row() -> QuotaToken:
    return QuotaToken.objects.get()


def in_threads(count: int, work: Callable[[], Any]) -> list[Any]:
    """What `work` returned or raised, in `count` threads that begin together."""

    def run() -> Any:
        try:
            return work()
        except Exception as error:
            return error

    return begin_together([run] * count)


def seen_row() -> QuotaToken:
    return QuotaToken.objects.with_identity().get()


class TestFresh:
    def test_one_query_and_no_request(
        self, user: Any, sandbox: Sandbox, django_assert_num_queries: Any
    ) -> None:
        with django_assert_num_queries(1):
            token = access.get_access_token(user)

        assert token.startswith("quota_token_")
        assert sandbox.requests() == []

    def test_only_the_access_token_is_decrypted(
        self, user: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        decrypted = []
        real = fields.EncryptedTokenField.from_db_value

        def spy(self: Any, value: Any, *args: Any) -> Any:
            decrypted.append(self.name)
            return real(self, value, *args)

        monkeypatch.setattr(fields.EncryptedTokenField, "from_db_value", spy)
        access.get_access_token(user)

        assert decrypted == ["access_token"]

    @pytest.mark.parametrize(("left", "requests"), [(29, RENEWAL), (60, [])])
    def test_renewed_thirty_seconds_before_expiry(
        self, user: Any, sandbox: Sandbox, left: int, requests: list[str]
    ) -> None:
        expire(left)

        access.get_access_token(user)

        assert sandbox.requests() == requests

    def test_only_a_user_can_be_asked_for(self, user: Any) -> None:
        """Another row with the same key would have this user pay."""
        account = ProviderAccount.objects.get()
        with pytest.raises(TypeError, match="not a user"):
            access.get_access_token(account)

    @pytest.mark.parametrize("nobody", [AnonymousUser(), None])
    def test_nobody_is_not_connected(self, nobody: Any) -> None:
        stranger = nobody or get_user_model().objects.create(username="without a wallet")
        with pytest.raises(NotConnected, match="sign in with Quota"):
            access.get_access_token(stranger)


class TestRenewal:
    def test_the_new_pair_is_saved_and_the_next_renewal_works(
        self, user: Any, sandbox: Sandbox
    ) -> None:
        before = row()
        expire()
        first = access.get_access_token(user)
        after = row()
        expire()
        second = access.get_access_token(user)

        assert len({before.access_token.reveal(), first, second}) == 3
        assert after.access_token.reveal() == first
        assert after.refresh_token.reveal() != before.refresh_token.reveal()
        assert after.version == before.version + 1
        assert (after.lease_owner, after.lease_until) == ("", None)
        assert sandbox.requests() == RENEWAL * 2

    def test_a_reply_without_a_refresh_token_keeps_the_old_one(
        self, user: Any, sandbox: Sandbox
    ) -> None:
        sandbox.set(rotate_refresh_tokens=False)
        before = row()
        expire()

        assert access.get_access_token(user) != before.access_token.reveal()

        assert row().refresh_token.reveal() == before.refresh_token.reveal()

    def test_what_quota_refused_is_renewed_whatever_its_expiry_says(
        self, user: Any, sandbox: Sandbox
    ) -> None:
        refused = access.get_access_token(user)

        renewed = access.get_access_token(user, rejected=refused)

        assert renewed != refused
        assert access.get_access_token(user, rejected=refused) == renewed
        assert sandbox.requests() == RENEWAL

    def test_sixteen_threads_make_one_call(self, user: Any, sandbox: Sandbox) -> None:
        expire()

        got = in_threads(16, lambda: access.get_access_token(user))

        assert set(got) == {row().access_token.reveal()}
        assert sandbox.requests() == RENEWAL

    @pytest.mark.process
    def test_four_processes_make_one_call(self, user: Any, sandbox: Sandbox, settings: Any) -> None:
        expire()
        ours = {
            name: getattr(settings, name)
            for name in ("QUOTA_BASE_URL", "QUOTA_CLIENT_ID", "QUOTA_CLIENT_SECRET")
        }
        processes = [programs.start("get_token", **ours) for _ in range(4)]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        got = [process.communicate(timeout=60)[0].strip() for process in processes]

        assert set(got) == {row().access_token.reveal()}
        asked = [request for request in sandbox.requests() if request.startswith("POST")]
        assert asked == RENEWAL

    @pytest.mark.slow
    def test_inside_the_leeway_others_do_not_wait(
        self, user: Any, sandbox: Sandbox, settings: Any
    ) -> None:
        expire(20)
        old = row().access_token.reveal()
        settings.QUOTA_TIMEOUT, settings.QUOTA_DEADLINE = (5, 600), 600
        sandbox.set(latency={"/oauth/token": 60})

        with ThreadPoolExecutor(8) as pool:
            work = closes_connections(lambda: access.get_access_token(user))
            calls = [pool.submit(work) for _ in range(8)]
            wait_until(lambda: sum(call.done() for call in calls) == 7)
            sandbox.set(latency={})

        assert [call.result() for call in calls].count(old) == 7  # one went and renewed
        assert sandbox.requests() == RENEWAL

    def test_async_twin(self, user: Any, sandbox: Sandbox) -> None:
        async def both() -> tuple[str, str]:
            fresh = await access.aget_access_token(user)
            renewed = await access.aget_access_token(user, rejected=fresh)
            return fresh, renewed

        fresh, renewed = run_async(both())

        assert fresh != renewed == row().access_token.reveal()
        assert sandbox.requests() == RENEWAL

    def test_a_failure_is_every_tasks(self, user: Any, sandbox: Sandbox) -> None:
        expire()
        sandbox.set(fail={"path": "/oauth/token", "status": 503, "times": 1})

        async def all_of_them() -> list[Any]:
            asked = [access.aget_access_token(user) for _ in range(20)]
            got = await asyncio.gather(*asked, return_exceptions=True)
            return got

        assert {type(error) for error in run_async(all_of_them())} == {ProviderUnavailable}
        assert sandbox.requests() == ["POST /oauth/token"]
        assert not single_flight.renewals.is_running()


class TestFailure:
    def test_invalid_grant_asks_for_a_new_sign_in_and_keeps_the_row(
        self, user: Any, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
    ) -> None:
        spent = row().refresh_token.reveal()
        endpoints.refresh(spent)  # somebody else spends it: the strict provider ends the family
        sandbox.forget_requests()
        expire()

        for _ in range(2):
            with pytest.raises(ReauthenticationRequired) as caught:
                access.get_access_token(user)

        assert caught.value.provider_code == "invalid_grant"
        assert sandbox.requests() == RENEWAL  # the second time it was known
        assert row().refresh_token.reveal() == spent
        assert row().needs_sign_in
        assert "quota_" not in caplog.text

    def test_quotas_own_error_shape_means_the_same(self, user: Any, sandbox: Sandbox) -> None:
        endpoints.refresh(row().refresh_token.reveal())
        sandbox.set(token_error_shape="quota")
        expire()

        with pytest.raises(ReauthenticationRequired):
            access.get_access_token(user)

    def test_signing_in_again_mends_it(self, user: Any, person: Person) -> None:
        QuotaToken.objects.update(status=QuotaToken.Status.REAUTHENTICATION_REQUIRED)

        person.sign_in()

        assert access.get_access_token(user).startswith("quota_token_")

    @pytest.mark.parametrize("status", [500, 503, 429, 404])
    def test_an_outage_keeps_the_pair_and_is_not_repeated_at_once(
        self, user: Any, sandbox: Sandbox, status: int
    ) -> None:
        sandbox.set(fail={"path": "/oauth/token", "status": status, "times": 9})
        before = row()
        expire()

        for _ in range(3):
            with pytest.raises(ProviderUnavailable):
                access.get_access_token(user)

        assert sandbox.requests() == RENEWAL
        assert row().refresh_token.reveal() == before.refresh_token.reveal()
        assert not row().needs_sign_in

        sandbox.reset()
        QuotaToken.objects.update(last_failure_at=timezone.now() - timedelta(seconds=6))
        assert access.get_access_token(user) != before.access_token.reveal()
        assert row().last_failure == ""

    @pytest.mark.parametrize("status", [400, 401, 403])
    def test_refusal_without_a_reason_ends_at_a_sign_in_and_keeps_the_pair(
        self, user: Any, sandbox: Sandbox, status: int
    ) -> None:
        sandbox.set(fail={"path": "/oauth/token", "status": status, "times": 9})
        before = row().refresh_token
        expire()

        with pytest.raises(RefreshRefused):
            access.get_access_token(user)
        a_minute_ago = timezone.now() - timedelta(seconds=61)
        QuotaToken.objects.update(
            last_failure=decisions.refusal(a_minute_ago), last_failure_at=a_minute_ago
        )
        for _ in range(2):  # the second time it is known
            with pytest.raises(ReauthenticationRequired, match="without saying why"):
                access.get_access_token(user)

        assert sandbox.requests() == RENEWAL * 2
        assert (row().refresh_token, row().needs_sign_in) == (before, False)
        sandbox.reset()
        QuotaToken.objects.update(last_failure_at=a_minute_ago)
        assert access.get_access_token(user) == row().access_token.reveal()
        assert row().last_failure == ""

    def test_waiters_share_one_failure(self, user: Any, sandbox: Sandbox) -> None:
        sandbox.set(fail={"path": "/oauth/token", "status": 503, "times": 9})
        expire()

        got = in_threads(12, lambda: access.get_access_token(user))

        assert {type(error) for error in got} == {ProviderUnavailable}
        assert sandbox.requests() == RENEWAL

    def test_an_outage_inside_the_leeway_is_not_noticed(self, user: Any, sandbox: Sandbox) -> None:
        sandbox.set(fail={"path": "/oauth/token", "status": 503, "times": 9})
        expire(20)

        assert access.get_access_token(user) == row().access_token.reveal()

    def test_a_refused_client_is_the_developers_to_mend(self, user: Any, settings: Any) -> None:
        settings.QUOTA_CLIENT_SECRET = "quota_secret_wrong"
        expire()

        with pytest.raises(ConfigurationError, match="QUOTA_CLIENT_SECRET"):
            access.get_access_token(user)

        assert not row().needs_sign_in

    def test_the_older_secret_serves_while_one_is_rotated(self, user: Any, settings: Any) -> None:
        settings.QUOTA_CLIENT_SECRET = ["quota_secret_not_yet", settings.QUOTA_CLIENT_SECRET]
        expire()

        assert access.get_access_token(user) == row().access_token.reveal()

    def test_tokens_of_somebody_else_are_dropped(self, user: Any, sandbox: Sandbox) -> None:
        before = row()
        sandbox.set(id_token_overrides={"sub": "5b7c1c1e-0000-4000-8000-000000000000"})
        expire()

        with pytest.raises(ReauthenticationRequired, match="another person"):
            access.get_access_token(user)

        assert row().access_token.reveal() == before.access_token.reveal()

    @pytest.mark.parametrize(
        "claims",
        [
            {"iss": "https://evil.example"},
            {"aud": "quota_client_other"},
            {"aud": []},
        ],
    )
    def test_a_renewed_id_token_of_another_issuer_or_client_is_not_kept(
        self, user: Any, sandbox: Sandbox, claims: dict[str, Any]
    ) -> None:
        before = row()
        sandbox.set(id_token_overrides=claims)
        expire()

        assert access.get_access_token(user) != before.access_token.reveal()
        assert row().id_token.reveal() == before.id_token.reveal()

    @pytest.mark.parametrize("left", [20, 400])
    def test_without_a_refresh_token_what_lasts_is_used(
        self, user: Any, sandbox: Sandbox, left: int
    ) -> None:
        """Nobody is signed out before their access ends: not by a page, nor by bulk work."""
        QuotaToken.objects.update(
            refresh_token="", expires_at=timezone.now() + timedelta(seconds=left)
        )
        token = row().access_token.reveal()
        assert not access.renew_unless_taken(seen_row(), since=timezone.now(), patience=1)
        assert access.get_access_token(user) == token
        assert not row().needs_sign_in
        with pytest.raises(ReauthenticationRequired):
            access.get_access_token(user, rejected=token)
        assert sandbox.requests() == []

    def test_no_refresh_token_at_all(self, user: Any, sandbox: Sandbox) -> None:
        stored = row()
        stored.refresh_token = ""
        stored.save()
        expire()

        with pytest.raises(ReauthenticationRequired, match="no refresh token"):
            access.get_access_token(user)

        assert sandbox.requests() == []

    def test_an_unreadable_token_is_neither_sent_nor_overwritten(
        self, user: Any, sandbox: Sandbox, settings: Any
    ) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT access_token FROM django_quota_quotatoken")
            (ciphertext,) = cursor.fetchone()
            settings.FIELD_ENCRYPTION_KEY = "Zm9yIGEgdGVzdCBvbmx5LCBhbmQgMzIgYnl0ZXMhISE="

            with pytest.raises(TokenUnreadable, match="FIELD_ENCRYPTION_KEY"):
                access.get_access_token(user)

            cursor.execute("SELECT access_token FROM django_quota_quotatoken")
            assert cursor.fetchone() == (ciphertext,)
        assert sandbox.requests() == []

    def test_signing_in_again_replaces_an_unreadable_pair(
        self, user: Any, person: Person, settings: Any
    ) -> None:
        settings.FIELD_ENCRYPTION_KEY = "Zm9yIGEgdGVzdCBvbmx5LCBhbmQgMzIgYnl0ZXMhISE="

        person.sign_in()

        assert access.get_access_token(user) == row().access_token.reveal()


class TestTransactions:
    def test_no_transaction_is_open_during_the_call(
        self, user: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = []
        real = endpoints.refresh

        def watching(refresh_token: str) -> endpoints.TokenReply:
            seen.append(connection.in_atomic_block)
            return real(refresh_token)

        monkeypatch.setattr(endpoints, "refresh", watching)
        expire()
        access.get_access_token(user)

        assert seen == [False]

    def test_a_rollback_of_the_callers_does_not_bring_the_spent_token_back(
        self, user: Any, sandbox: Sandbox
    ) -> None:
        before = row()
        expire()
        if connection.vendor == "sqlite":
            with pytest.raises(RefreshImpossibleHere, match="SQLite"), transaction.atomic():
                access.get_access_token(user)
            assert sandbox.requests() == []
            assert row().refresh_token.reveal() == before.refresh_token.reveal()
            return

        with pytest.raises(ZeroDivisionError), transaction.atomic():
            token = access.get_access_token(user)
            raise ZeroDivisionError

        assert row().access_token.reveal() == token
        assert row().refresh_token.reveal() != before.refresh_token.reveal()
        expire()
        assert access.get_access_token(user)

    def test_inside_the_leeway_a_transaction_goes_on_with_the_old_token(self, user: Any) -> None:
        if connection.vendor != "sqlite":
            pytest.skip("other databases renew it")
        expire(20)
        with transaction.atomic():
            assert access.get_access_token(user) == row().access_token.reveal()

    def test_a_row_that_is_not_committed_yet(self, user: Any, sandbox: Sandbox) -> None:
        if connection.vendor == "sqlite":
            pytest.skip("SQLite refuses before it looks")
        other = get_user_model().objects.create(username="other")
        with transaction.atomic():
            account = ProviderAccount.objects.create(user=other, external_id="other")
            QuotaToken.objects.create(account=account, refresh_token="quota_refresh_x")
            with pytest.raises(RefreshImpossibleHere, match="not committed"):
                access.get_access_token(other)
        assert sandbox.requests() == []

    def test_a_user_who_is_disconnected_meanwhile(self, user: Any, sandbox: Sandbox) -> None:
        """It is not the developer who has to mend that."""
        if connection.vendor == "sqlite":
            pytest.skip("SQLite refuses before it looks")
        expire()
        with transaction.atomic():
            wanted = access._found(user, None)
            assert not isinstance(wanted, str)
            with ThreadPoolExecutor(1) as pool:
                pool.submit(closes_connections(connecting.disconnect), user).result()
            with pytest.raises(NotConnected):
                wanted.result()
        assert sandbox.requests() == []

    def test_a_row_that_the_caller_has_locked(self, user: Any, sandbox: Sandbox) -> None:
        if connection.vendor == "sqlite":
            pytest.skip("SQLite refuses before it looks")
        expire()
        with transaction.atomic():
            QuotaToken.objects.select_for_update().get()
            with pytest.raises(RefreshImpossibleHere, match="locked"):
                access.get_access_token(user)
        assert sandbox.requests() == []


class TestPatience:
    @pytest.mark.slow
    def test_a_new_pair_is_saved_however_long_the_row_is_locked(
        self, user: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It exists nowhere else: the refresh token has been spent."""
        monkeypatch.setattr(locking, "LOCK_WAIT", 0.1)
        unlock: list[Callable[[], None]] = []
        refresh, pauses = endpoints.refresh, locking.pauses

        def locked_meanwhile(refresh_token: str) -> endpoints.TokenReply:
            reply = refresh(refresh_token)
            unlock.append(stack.enter_context(locked_elsewhere()))
            return reply

        def unlocked_before_the_third_attempt(*args: Any) -> Iterator[None]:
            for attempt, _ in enumerate(pauses(*args)):
                if attempt == 2:
                    unlock[0]()
                yield

        monkeypatch.setattr(endpoints, "refresh", locked_meanwhile)
        monkeypatch.setattr(locking, "pauses", unlocked_before_the_third_attempt)
        expire()

        with ExitStack() as stack:
            token = access.get_access_token(user)

        assert token == row().access_token.reveal()

    def test_a_claim_does_not_wait_for_ever(
        self, user: Any, monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox
    ) -> None:
        if connection.vendor == "sqlite":
            pytest.skip("SQLite waits as long as its own timeout says")
        monkeypatch.setattr(locking, "LOCK_WAIT", 0.1)
        expire()

        stays_locked = pytest.raises(ProviderUnavailable, match="The token row stayed locked")
        with locked_elsewhere(), stays_locked as caught:
            access.get_access_token(user)

        assert caught.value.request_sent is False
        assert sandbox.requests() == []

    def test_disconnecting_does_not_wait_for_ever(
        self, user: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if connection.vendor == "sqlite":
            pytest.skip("SQLite waits as long as its own timeout says")
        monkeypatch.setattr(locking, "LOCK_WAIT", 0.1)

        with locked_elsewhere(), pytest.raises(ProviderUnavailable, match="try again soon"):
            connecting.disconnect(user)

        assert row().access_token.reveal()

    def test_a_lease_of_the_future_is_none(self, user: Any, sandbox: Sandbox) -> None:
        """The clock was set back since."""
        QuotaToken.objects.update(lease_owner="x", lease_until=timezone.now() + timedelta(hours=1))
        expire()
        access.get_access_token(user)
        assert sandbox.requests() == RENEWAL

    @pytest.mark.parametrize(("deadline", "ahead"), [(1, 65), (20, 50), (100, 160)])
    def test_a_lease_of_a_longer_deadline_or_a_clock_ahead_is_one(
        self, user: Any, sandbox: Sandbox, settings: Any, deadline: float, ahead: float
    ) -> None:
        """While a longer QUOTA_DEADLINE is deployed, some processes have the shorter one."""
        settings.QUOTA_DEADLINE = deadline
        until = timezone.now() + timedelta(seconds=ahead)
        QuotaToken.objects.update(lease_owner="x", lease_until=until)
        assert not access.renew_unless_taken(seen_row(), since=timezone.now(), patience=1)
        assert sandbox.requests() == []

    @pytest.mark.slow
    def test_renewal_goes_on_when_the_time_limit_of_its_caller_ends(
        self, user: Any, sandbox: Sandbox
    ) -> None:
        sandbox.set(latency={"/oauth/token": 60})
        expire()
        before = row()
        with within(0.2), pytest.raises(ProviderUnavailable, match="still being renewed"):
            access.get_access_token(user)
        sandbox.set(latency={})
        wait_until(lambda: not single_flight.renewals.is_running())
        assert row().version == before.version + 1


class TestRaces:
    def during_the_call(
        self, monkeypatch: pytest.MonkeyPatch, what: Callable[[], Any]
    ) -> list[endpoints.TokenReply]:
        """Let `what` happen after Quota has answered a renewal and before that is saved."""
        replies: list[endpoints.TokenReply] = []
        real = endpoints.refresh

        def interrupted(refresh_token: str) -> endpoints.TokenReply:
            replies.append(real(refresh_token))
            what()
            return replies[-1]

        monkeypatch.setattr(endpoints, "refresh", interrupted)
        return replies

    def test_a_sign_in_during_a_renewal_wins(
        self, user: Any, person: Person, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        back = person.at_quota(person.start())
        replies = self.during_the_call(monkeypatch, lambda: person.come_back(back))
        old = row().refresh_token.reveal()
        expire()

        token = access.get_access_token(user)

        assert token == row().access_token.reveal() != replies[0].access_token
        queued = {pending.token.reveal() for pending in PendingRevocation.objects.all()}
        assert queued == {old, replies[0].refresh_token}

    def test_a_disconnect_during_a_renewal_wins(
        self, user: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        replies = self.during_the_call(monkeypatch, lambda: connecting.disconnect(user))
        expire()

        with pytest.raises(NotConnected):
            access.get_access_token(user)

        assert not QuotaToken.objects.exists()
        assert replies[0].refresh_token in {
            p.token.reveal() for p in PendingRevocation.objects.all()
        }

    def test_invalid_grant_is_not_believed_when_the_row_has_a_newer_pair(
        self, user: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        account = ProviderAccount.objects.get()

        def lost_race(refresh_token: str) -> endpoints.TokenReply:
            newer = endpoints.TokenReply(
                access_token="quota_token_newer",
                refresh_token="quota_refresh_newer",
                id_token=None,
                expires_in=3600,
                scope=None,
            )
            store_tokens(account, newer)
            raise ReauthenticationRequired("spent", provider_code="invalid_grant")

        monkeypatch.setattr(endpoints, "refresh", lost_race)
        expire()

        assert access.get_access_token(user) == "quota_token_newer"
        assert not row().needs_sign_in

    def test_a_valid_token_is_gone_on_with_while_its_owner_is_late(
        self, user: Any, sandbox: Sandbox
    ) -> None:
        QuotaToken.objects.update(lease_owner="late", lease_until=timezone.now())
        expire(10)
        assert access.get_access_token(user) == row().access_token.reveal()
        assert sandbox.requests() == []

    def test_of_two_pairs_of_one_grant_the_second_is_not_revoked(
        self, user: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Quota has a grace period, and the first owner was taken for dead. To revoke what they
        have may end the grant, and with it the pair that is kept (RFC 7009 section 2.1)."""

        def taken_over() -> None:
            taker = row()
            taker.access_token, taker.refresh_token = "quota_token_2", "quota_refresh_2"
            taker.version += 1
            taker.expires_at = timezone.now() + timedelta(hours=1)
            taker.save()

        self.during_the_call(monkeypatch, taken_over)
        expire()

        assert access.get_access_token(user) == "quota_token_2"
        assert row().refresh_token.reveal() == "quota_refresh_2"
        assert not PendingRevocation.objects.exists()

    def test_an_operator_who_asks_for_a_sign_in_during_a_renewal_wins(
        self, user: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        replies = self.during_the_call(
            monkeypatch,
            lambda: QuotaToken.objects.update(
                status=QuotaToken.Status.REAUTHENTICATION_REQUIRED, version=F("version") + 1
            ),
        )
        expire()

        with pytest.raises(ReauthenticationRequired):
            access.get_access_token(user)

        # The row keeps the successor, for the next sign-in to supersede.
        assert pair()[1] == replies[0].refresh_token
        assert not PendingRevocation.objects.exists()

    @pytest.mark.parametrize("version", [0, 1])
    def test_an_operator_who_asks_for_a_sign_in_during_a_failing_renewal_wins(
        self, user: Any, monkeypatch: pytest.MonkeyPatch, version: int
    ) -> None:
        """The old token is valid still, but not to be gone on with."""

        def refresh(refresh_token: str) -> endpoints.TokenReply:
            QuotaToken.objects.update(
                status=QuotaToken.Status.REAUTHENTICATION_REQUIRED, version=F("version") + version
            )
            raise ProviderUnavailable("down")

        monkeypatch.setattr(endpoints, "refresh", refresh)
        expire(20)

        with pytest.raises(ReauthenticationRequired):
            access.get_access_token(user)

    def test_the_lease_of_a_killed_worker_ends(self, user: Any, sandbox: Sandbox) -> None:
        past = timezone.now() - timedelta(seconds=leases.SAVE_PATIENCE + 1)
        QuotaToken.objects.update(lease_owner="killed", lease_until=past)
        expire()

        access.get_access_token(user)

        assert sandbox.requests() == RENEWAL


class TestDates:
    """A save may come a minute after Quota was asked; the token lives from that moment on."""

    @pytest.fixture
    def asked_a_minute_ago(self, monkeypatch: pytest.MonkeyPatch) -> None:
        earlier = SimpleNamespace(monotonic=lambda: time.monotonic() - 60)
        for module in (renewal, storing):
            monkeypatch.setattr(module, "time", earlier)

    def dates_from_then(self) -> bool:
        asked_by = timezone.now() - timedelta(minutes=1)
        stored = row()
        return stored.updated_at <= asked_by and stored.expires_at <= asked_by + timedelta(hours=1)

    @pytest.mark.usefixtures("asked_a_minute_ago")
    def test_of_a_renewal(self, user: Any, sandbox: Sandbox) -> None:
        expire()
        access.get_access_token(user)
        assert self.dates_from_then()

    @pytest.mark.usefixtures("asked_a_minute_ago")
    def test_of_a_sign_in(self, user: Any) -> None:
        store_tokens(ProviderAccount.objects.get(), NEW_PAIR)
        assert self.dates_from_then()


class TestRevocation:
    @pytest.fixture
    def locked_out(self, monkeypatch: pytest.MonkeyPatch) -> endpoints.TokenReply:
        """The pair of a sign-in, and a token row that is locked for ever."""

        def locked(*args: Any, **options: Any) -> Any:
            raise OperationalError("locked")

        monkeypatch.setattr(locking, "locked", locked)
        monkeypatch.setattr(locking, "LOCK_WAIT", 0.1)
        return NEW_PAIR

    @pytest.mark.parametrize("atomic", [False, True])
    def test_a_sign_in_that_cannot_be_saved_is_given_back(
        self, user: Any, locked_out: endpoints.TokenReply, atomic: bool
    ) -> None:
        """A transaction of the caller's is rolled back by the error."""
        if atomic and connection.vendor == "sqlite":
            pytest.skip("no other connection can write meanwhile")
        caller = transaction.atomic() if atomic else nullcontext()
        with pytest.raises(ProviderUnavailable, match="The token row stayed locked"), caller:
            store_tokens(ProviderAccount.objects.get(), locked_out)

        queued = [pending.token.reveal() for pending in PendingRevocation.objects.all()]
        assert queued == ["quota_refresh_new"]

    def test_nor_can_it_be_given_back(
        self,
        user: Any,
        locked_out: endpoints.TokenReply,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def queue(refresh_token: str, **options: Any) -> None:
            raise InterfaceError(f"the database is away: {refresh_token}")

        monkeypatch.setattr(revocation, "queue", queue)
        with pytest.raises(ProviderUnavailable, match="The token row stayed locked"):
            store_tokens(ProviderAccount.objects.get(), locked_out)

        assert "could not be queued" in caplog.text
        assert "quota_refresh_" not in caplog.text

    def test_a_superseded_refresh_token_is_revoked(self, user: Any, person: Person) -> None:
        old = row().refresh_token.reveal()
        person.sign_in()
        assert [pending.token.reveal() for pending in PendingRevocation.objects.all()] == [old]

        assert revocation.revoke_pending() == 1

        assert not PendingRevocation.objects.exists()
        with pytest.raises(ReauthenticationRequired):
            endpoints.refresh(old)

    def test_a_token_that_goes_on_is_not_revoked(self, user: Any, sandbox: Sandbox) -> None:
        """A provider that does not rotate sends the same one again."""
        same = endpoints.TokenReply(
            access_token="quota_token_new",
            refresh_token=row().refresh_token.reveal(),
            id_token=None,
            expires_in=60,
            scope=None,
        )
        store_tokens(ProviderAccount.objects.get(), same, asked="openid")
        assert not PendingRevocation.objects.exists()
        assert row().scope == "openid"

    def test_disconnecting_revokes(self, user: Any) -> None:
        old = row().refresh_token.reveal()
        connecting.disconnect(user)

        assert revocation.revoke_pending() == 1
        with pytest.raises(ReauthenticationRequired):
            endpoints.refresh(old)

    def test_deleting_the_user_revokes(self, user: Any) -> None:
        old = row().refresh_token.reveal()
        user.delete()
        assert [pending.token.reveal() for pending in PendingRevocation.objects.all()] == [old]

    def test_an_outage_leaves_the_queue(self, user: Any, sandbox: Sandbox) -> None:
        connecting.disconnect(user)
        sandbox.set(fail={"path": "/oauth/revoke", "status": 503, "times": 1})

        assert revocation.revoke_pending() == 0
        assert PendingRevocation.objects.get().attempts == 1
        assert revocation.revoke_pending() == 1
