"""Tokens: stored, renewed exactly once, revoked. Calls are counted at the sandbox."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.db import InterfaceError, OperationalError, connection, connections, transaction
from django.db.models import F
from django.utils import timezone

from django_quota import accounts, fields, leases, locking, provider, revocation, tokens, transport
from django_quota.conf import get_settings
from django_quota.exceptions import (
    ConfigurationError,
    NotConnected,
    ProviderUnavailable,
    ReauthenticationRequired,
    RefreshImpossibleHere,
    TokenUnreadable,
)
from django_quota.models import PendingRevocation, ProviderAccount, QuotaToken
from tests.sandbox_client import Person, Sandbox

pytestmark = pytest.mark.django_db(transaction=True)

RENEWAL = ["POST /oauth/token"]


def row() -> QuotaToken:
    return QuotaToken.objects.with_secrets("access_token", "refresh_token", "id_token").get()


def expire(seconds: float = -1) -> None:
    """Let the access token expire in so many seconds."""
    QuotaToken.objects.update(expires_at=timezone.now() + timedelta(seconds=seconds))


def in_threads(count: int, work: Callable[[], Any]) -> list[Any]:
    """What `work` returned or raised, in `count` threads that begin together."""
    barrier = threading.Barrier(count)

    def run() -> Any:
        barrier.wait()
        try:
            return work()
        except Exception as error:
            return error
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as pool:
        return [future.result() for future in [pool.submit(run) for _ in range(count)]]


class Clock:
    """A clock that only sleep moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of whoever renews."""
    clock = Clock()
    for module in (tokens, leases, locking):
        monkeypatch.setattr(module, "time", clock)
    return clock


class TestFresh:
    def test_one_query_and_no_request(
        self, user: Any, sandbox: Sandbox, django_assert_num_queries: Any
    ) -> None:
        with django_assert_num_queries(1):
            token = tokens.get_access_token(user)

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
        tokens.get_access_token(user)

        assert decrypted == ["access_token"]

    @pytest.mark.parametrize(("left", "requests"), [(29, RENEWAL), (60, [])])
    def test_renewed_thirty_seconds_before_expiry(
        self, user: Any, sandbox: Sandbox, left: int, requests: list[str]
    ) -> None:
        expire(left)

        tokens.get_access_token(user)

        assert sandbox.requests() == requests

    def test_only_a_user_can_be_asked_for(self, user: Any) -> None:
        """Another row with the same key would have this user pay."""
        account = ProviderAccount.objects.get()
        with pytest.raises(TypeError, match="not a user"):
            tokens.get_access_token(account)

    @pytest.mark.parametrize("nobody", [AnonymousUser(), None])
    def test_nobody_is_not_connected(self, nobody: Any) -> None:
        stranger = nobody or get_user_model().objects.create(username="without a wallet")
        with pytest.raises(NotConnected, match="sign in with Quota"):
            tokens.get_access_token(stranger)


class TestRenewal:
    def test_the_new_pair_is_saved_and_the_next_renewal_works(
        self, user: Any, sandbox: Sandbox
    ) -> None:
        before = row()
        expire()
        first = tokens.get_access_token(user)
        after = row()
        expire()
        second = tokens.get_access_token(user)

        assert len({before.access_token, first, second}) == 3
        assert after.access_token == first
        assert after.refresh_token != before.refresh_token
        assert after.version == before.version + 1
        assert (after.lease_owner, after.lease_until) == ("", None)
        assert sandbox.requests() == RENEWAL * 2

    def test_a_reply_without_a_refresh_token_keeps_the_old_one(
        self, user: Any, sandbox: Sandbox
    ) -> None:
        sandbox.set(rotate_refresh_tokens=False)
        before = row()
        expire()

        assert tokens.get_access_token(user) != before.access_token

        assert row().refresh_token == before.refresh_token

    def test_what_quota_refused_is_renewed_whatever_its_expiry_says(
        self, user: Any, sandbox: Sandbox
    ) -> None:
        refused = tokens.get_access_token(user)

        renewed = tokens.get_access_token(user, rejected=refused)

        assert renewed != refused
        assert tokens.get_access_token(user, rejected=refused) == renewed
        assert sandbox.requests() == RENEWAL

    def test_sixteen_threads_make_one_call(self, user: Any, sandbox: Sandbox) -> None:
        expire()

        got = in_threads(16, lambda: tokens.get_access_token(user))

        assert set(got) == {row().access_token}
        assert sandbox.requests() == RENEWAL

    def test_four_processes_make_one_call(self, user: Any, sandbox: Sandbox, settings: Any) -> None:
        expire()
        script = (
            "import sys, django; from django.conf import settings\n"
            "settings.DATABASES['default']['NAME'] = sys.argv[1]\n"
            "settings.QUOTA_BASE_URL = sys.argv[2]; settings.QUOTA_CLIENT_ID = sys.argv[3]\n"
            "settings.QUOTA_CLIENT_SECRET = sys.argv[4]\n"
            "django.setup()\n"
            "from django.contrib.auth import get_user_model\n"
            "from django_quota import tokens\n"
            "user = get_user_model().objects.get(); sys.stdin.readline()\n"
            "print(tokens.get_access_token(user))\n"
        )
        arguments = [
            str(connection.settings_dict["NAME"]),
            settings.QUOTA_BASE_URL,
            settings.QUOTA_CLIENT_ID,
            settings.QUOTA_CLIENT_SECRET,
        ]
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", script, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=dict(os.environ),
            )
            for _ in range(4)
        ]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        got = [process.communicate(timeout=60)[0].strip() for process in processes]

        assert set(got) == {row().access_token}
        asked = [request for request in sandbox.requests() if request.startswith("POST")]
        assert asked == RENEWAL

    def test_inside_the_leeway_others_do_not_wait(self, user: Any, sandbox: Sandbox) -> None:
        expire(20)
        old = row().access_token
        sandbox.set(latency={"/oauth/token": 1})

        got = in_threads(8, lambda: tokens.get_access_token(user))

        assert got.count(old) == 7  # one went and renewed
        assert sandbox.requests() == RENEWAL

    def test_async_twin(self, user: Any, sandbox: Sandbox) -> None:
        async def both() -> tuple[str, str]:
            fresh = await tokens.aget_access_token(user)
            renewed = await tokens.aget_access_token(user, rejected=fresh)
            await sync_to_async(connections.close_all)()  # those of this loop's own thread
            return fresh, renewed

        fresh, renewed = asyncio.run(both())

        assert fresh != renewed == row().access_token
        assert sandbox.requests() == RENEWAL

    def test_tasks_of_one_loop_share_a_renewal(
        self, user: Any, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """500 waiting tasks must not hold 500 threads and connections."""
        expire()
        working: list[Any] = []
        at_once = []
        renew = tokens._renew_or_go_on

        def counted(*of: Any) -> str:
            working.append(of)
            at_once.append(len(working))
            try:
                return renew(*of)
            finally:
                working.pop()

        monkeypatch.setattr(tokens, "_renew_or_go_on", counted)

        async def all_of_them() -> list[str]:
            asked = [tokens.aget_access_token(user) for _ in range(500)]
            got = await asyncio.gather(*asked)
            await sync_to_async(connections.close_all)()
            return got

        assert len(set(asyncio.run(all_of_them()))) == 1
        assert max(at_once) == 1
        assert sandbox.requests() == ["POST /oauth/token"]

    def test_a_renewal_elsewhere_knows_whom_it_is_for(
        self, user: Any, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A database router may ask a context variable which tenant is served."""
        tenant = ContextVar("tenant", default="nobody's")
        renew = tokens._renew_or_go_on
        served = []

        def noted(*of: Any) -> str:
            served.append(tenant.get())
            return renew(*of)

        monkeypatch.setattr(tokens, "_renew_or_go_on", noted)
        tenant.set("this one's")
        expire()
        tokens.get_access_token(user, timeout=10)
        expire()

        async def ask() -> None:
            await tokens.aget_access_token(user)
            await sync_to_async(connections.close_all)()

        asyncio.run(ask())
        assert served == ["this one's"] * 2

    def test_a_task_does_not_wait_for_ever(
        self, user: Any, sandbox: Sandbox, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """All threads may be busy with others while Quota hangs."""
        expire()
        done = threading.Event()
        monkeypatch.setattr(tokens, "_renew_or_go_on", lambda *of: done.wait(20))
        monkeypatch.setattr(leases, "MARGIN", 0)
        settings.QUOTA_DEADLINE = 0.2

        async def ask() -> None:
            try:
                with pytest.raises(ProviderUnavailable, match="still being renewed"):
                    await tokens.aget_access_token(user)
            finally:
                done.set()
                await sync_to_async(connections.close_all)()

        asyncio.run(ask())

    def test_a_task_waits_as_long_as_a_renewal_may_take(
        self, user: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """That of a dead owner's token is one that begins when their time is over."""
        timeouts: list[float] = []

        async def shared(key: Any, work: Any, timeout: float) -> str:
            timeouts.append(timeout)
            return ""

        monkeypatch.setattr(locking, "shared", shared)
        settings.QUOTA_DEADLINE = 7
        expire()

        async def ask() -> None:
            await tokens.aget_access_token(user)
            await sync_to_async(connections.close_all)()

        asyncio.run(ask())
        assert timeouts == [leases.wait_time() + 7 + leases.MARGIN]

    def test_a_thread_that_cannot_be_started_keeps_no_place(
        self, user: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def start(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(locking, "_background", threading.BoundedSemaphore(1))
        expire()
        with monkeypatch.context() as patch:
            patch.setattr(locking.Thread, "start", start)
            with pytest.raises(RuntimeError, match="new thread"):
                tokens.get_access_token(user, timeout=10)

        assert tokens.get_access_token(user, timeout=10) == row().access_token

    def test_the_pages_of_one_user_share_a_place_behind_them(
        self, user: Any, person: Person, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With a place for each, those of one user would keep all others from theirs."""
        monkeypatch.setattr(locking, "_background", threading.BoundedSemaphore(2))
        person.sandbox.person().sign_in()
        other = get_user_model().objects.exclude(pk=user.pk).get()
        asked = threading.Semaphore(0)
        answer = threading.Event()
        real = provider.refresh

        def refresh(refresh_token: str) -> provider.TokenReply:
            asked.release()
            assert answer.wait(60)
            return real(refresh_token)

        def begin(whose: Any) -> None:
            with pytest.raises(ProviderUnavailable, match="still being renewed"):
                tokens.get_access_token(whose, timeout=0)

        monkeypatch.setattr(provider, "refresh", refresh)
        expire()
        for whose in (user, user, user, other):
            begin(whose)
        for _ in range(2):
            assert asked.acquire(timeout=60)
        answer.set()
        for thread in threading.enumerate():
            if thread.name == "django_quota-renewal":
                thread.join()
        assert not asked.acquire(blocking=False)
        assert locking._behind == {}
        assert [locking._background.acquire(blocking=False) for _ in range(2)] == [True, True]
        assert tokens.get_access_token(user, timeout=0) != tokens.get_access_token(other, timeout=0)

    def test_a_cancelled_task_takes_nothing_from_the_others(
        self, user: Any, sandbox: Sandbox
    ) -> None:
        expire()
        sandbox.set(latency={"/oauth/token": 0.5})

        async def one_gives_up() -> str:
            first = asyncio.create_task(tokens.aget_access_token(user))
            second = asyncio.create_task(tokens.aget_access_token(user))
            while not locking._under_way:
                await asyncio.sleep(0.01)
            first.cancel()
            token = await second
            await sync_to_async(connections.close_all)()
            assert first.cancelled()
            return token

        assert asyncio.run(one_gives_up()) == row().access_token
        assert sandbox.requests() == RENEWAL

    def test_a_failure_is_every_tasks(self, user: Any, sandbox: Sandbox) -> None:
        expire()
        sandbox.set(fail={"path": "/oauth/token", "status": 503, "times": 1})

        async def all_of_them() -> list[Any]:
            asked = [tokens.aget_access_token(user) for _ in range(20)]
            got = await asyncio.gather(*asked, return_exceptions=True)
            await sync_to_async(connections.close_all)()
            return got

        assert {type(error) for error in asyncio.run(all_of_them())} == {ProviderUnavailable}
        assert sandbox.requests() == ["POST /oauth/token"]
        assert locking._under_way == {}


class TestFailure:
    def test_invalid_grant_asks_for_a_new_sign_in_and_keeps_the_row(
        self, user: Any, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
    ) -> None:
        spent = row().refresh_token
        provider.refresh(spent)  # somebody else spends it: the strict provider ends the family
        sandbox.forget_requests()
        expire()

        for _ in range(2):
            with pytest.raises(ReauthenticationRequired) as caught:
                tokens.get_access_token(user)

        assert caught.value.provider_code == "invalid_grant"
        assert sandbox.requests() == RENEWAL  # the second time it was known
        assert row().refresh_token == spent
        assert row().needs_sign_in
        assert "quota_" not in caplog.text

    def test_quotas_own_error_shape_means_the_same(self, user: Any, sandbox: Sandbox) -> None:
        provider.refresh(row().refresh_token)
        sandbox.set(token_error_shape="quota")
        expire()

        with pytest.raises(ReauthenticationRequired):
            tokens.get_access_token(user)

    def test_signing_in_again_mends_it(self, user: Any, person: Person) -> None:
        QuotaToken.objects.update(status=QuotaToken.Status.REAUTHENTICATION_REQUIRED)

        person.sign_in()

        assert tokens.get_access_token(user).startswith("quota_token_")

    @pytest.mark.parametrize("status", [500, 503, 429, 404])
    def test_an_outage_keeps_the_pair_and_is_not_repeated_at_once(
        self, user: Any, sandbox: Sandbox, status: int
    ) -> None:
        sandbox.set(fail={"path": "/oauth/token", "status": status, "times": 9})
        before = row()
        expire()

        for _ in range(3):
            with pytest.raises(ProviderUnavailable):
                tokens.get_access_token(user)

        assert sandbox.requests() == RENEWAL
        assert row().refresh_token == before.refresh_token
        assert not row().needs_sign_in

        sandbox.reset()
        QuotaToken.objects.update(last_failure_at=timezone.now() - timedelta(seconds=6))
        assert tokens.get_access_token(user) != before.access_token
        assert row().last_failure == ""

    def test_waiters_share_one_failure(self, user: Any, sandbox: Sandbox) -> None:
        sandbox.set(fail={"path": "/oauth/token", "status": 503, "times": 9})
        expire()

        got = in_threads(12, lambda: tokens.get_access_token(user))

        assert {type(error) for error in got} == {ProviderUnavailable}
        assert sandbox.requests() == RENEWAL

    def test_an_outage_inside_the_leeway_is_not_noticed(self, user: Any, sandbox: Sandbox) -> None:
        sandbox.set(fail={"path": "/oauth/token", "status": 503, "times": 9})
        expire(20)

        assert tokens.get_access_token(user) == row().access_token

    def test_a_refused_client_is_the_developers_to_mend(self, user: Any, settings: Any) -> None:
        settings.QUOTA_CLIENT_SECRET = "quota_secret_wrong"
        expire()

        with pytest.raises(ConfigurationError, match="QUOTA_CLIENT_SECRET"):
            tokens.get_access_token(user)

        assert not row().needs_sign_in

    def test_the_older_secret_serves_while_one_is_rotated(self, user: Any, settings: Any) -> None:
        settings.QUOTA_CLIENT_SECRET = ["quota_secret_not_yet", settings.QUOTA_CLIENT_SECRET]
        expire()

        assert tokens.get_access_token(user) == row().access_token

    def test_tokens_of_somebody_else_are_dropped(self, user: Any, sandbox: Sandbox) -> None:
        before = row()
        sandbox.set(id_token_overrides={"sub": "5b7c1c1e-0000-4000-8000-000000000000"})
        expire()

        with pytest.raises(ReauthenticationRequired, match="somebody else"):
            tokens.get_access_token(user)

        assert row().access_token == before.access_token

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

        assert tokens.get_access_token(user) != before.access_token
        assert row().id_token == before.id_token

    @pytest.mark.parametrize("left", [20, 400])
    def test_without_a_refresh_token_what_lasts_is_used(
        self, user: Any, sandbox: Sandbox, left: int
    ) -> None:
        """Nobody is signed out before their access ends: not by a page, nor by bulk work."""
        QuotaToken.objects.update(
            refresh_token="", expires_at=timezone.now() + timedelta(seconds=left)
        )
        token = row().access_token
        assert not tokens.renew_unless_taken(row(), since=timezone.now())
        assert tokens.get_access_token(user) == token
        assert not row().needs_sign_in
        with pytest.raises(ReauthenticationRequired):
            tokens.get_access_token(user, rejected=token)
        assert sandbox.requests() == []

    def test_no_refresh_token_at_all(self, user: Any, sandbox: Sandbox) -> None:
        stored = row()
        stored.refresh_token = ""
        stored.save()
        expire()

        with pytest.raises(ReauthenticationRequired, match="no refresh token"):
            tokens.get_access_token(user)

        assert sandbox.requests() == []

    def test_an_unreadable_token_is_neither_sent_nor_overwritten(
        self, user: Any, sandbox: Sandbox, settings: Any
    ) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT access_token FROM django_quota_quotatoken")
            (ciphertext,) = cursor.fetchone()
            settings.FIELD_ENCRYPTION_KEY = "Zm9yIGEgdGVzdCBvbmx5LCBhbmQgMzIgYnl0ZXMhISE="

            with pytest.raises(TokenUnreadable, match="FIELD_ENCRYPTION_KEY"):
                tokens.get_access_token(user)

            cursor.execute("SELECT access_token FROM django_quota_quotatoken")
            assert cursor.fetchone() == (ciphertext,)
        assert sandbox.requests() == []

    def test_signing_in_again_replaces_an_unreadable_pair(
        self, user: Any, person: Person, settings: Any
    ) -> None:
        settings.FIELD_ENCRYPTION_KEY = "Zm9yIGEgdGVzdCBvbmx5LCBhbmQgMzIgYnl0ZXMhISE="

        person.sign_in()

        assert tokens.get_access_token(user) == row().access_token


class TestTransactions:
    def test_no_transaction_is_open_during_the_call(
        self, user: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = []
        real = provider.refresh

        def watching(refresh_token: str) -> provider.TokenReply:
            seen.append(connection.in_atomic_block)
            return real(refresh_token)

        monkeypatch.setattr(provider, "refresh", watching)
        expire()
        tokens.get_access_token(user)

        assert seen == [False]

    def test_a_rollback_of_the_callers_does_not_bring_the_spent_token_back(
        self, user: Any, sandbox: Sandbox
    ) -> None:
        before = row()
        expire()
        if connection.vendor == "sqlite":
            with pytest.raises(RefreshImpossibleHere, match="SQLite"), transaction.atomic():
                tokens.get_access_token(user)
            assert sandbox.requests() == []
            assert row().refresh_token == before.refresh_token
            return

        with pytest.raises(ZeroDivisionError), transaction.atomic():
            token = tokens.get_access_token(user)
            raise ZeroDivisionError

        assert row().access_token == token
        assert row().refresh_token != before.refresh_token
        expire()
        assert tokens.get_access_token(user)

    def test_inside_the_leeway_a_transaction_goes_on_with_the_old_token(self, user: Any) -> None:
        if connection.vendor != "sqlite":
            pytest.skip("other databases renew it")
        expire(20)
        with transaction.atomic():
            assert tokens.get_access_token(user) == row().access_token

    def test_a_row_that_is_not_committed_yet(self, user: Any, sandbox: Sandbox) -> None:
        if connection.vendor == "sqlite":
            pytest.skip("SQLite refuses before it looks")
        other = get_user_model().objects.create(username="other")
        with transaction.atomic():
            account = ProviderAccount.objects.create(user=other, external_id="other")
            QuotaToken.objects.create(account=account, refresh_token="quota_refresh_x")
            with pytest.raises(RefreshImpossibleHere, match="not committed"):
                tokens.get_access_token(other)
        assert sandbox.requests() == []

    def test_a_row_that_the_caller_has_locked(self, user: Any, sandbox: Sandbox) -> None:
        if connection.vendor == "sqlite":
            pytest.skip("SQLite refuses before it looks")
        expire()
        with transaction.atomic():
            QuotaToken.objects.select_for_update().get()
            with pytest.raises(RefreshImpossibleHere, match="locked"):
                tokens.get_access_token(user)
        assert sandbox.requests() == []


class TestPatience:
    def lock(self, seconds: float) -> threading.Thread:
        """Somebody else has the token row locked for so long."""
        locked = threading.Event()

        def hold() -> None:
            with transaction.atomic():
                QuotaToken.objects.update(scope="theirs")  # SQLite: the one write lock
                locked.set()
                threading.Event().wait(seconds)
            connections.close_all()

        thread = threading.Thread(target=hold)
        thread.start()
        locked.wait()
        return thread

    def test_a_new_pair_is_saved_however_long_the_row_is_locked(
        self, user: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It exists nowhere else: the refresh token has been spent."""
        monkeypatch.setattr(tokens, "LOCK_PATIENCE", 0)
        threads = []
        real = provider.refresh

        def locked_meanwhile(refresh_token: str) -> provider.TokenReply:
            reply = real(refresh_token)
            threads.append(self.lock(1))
            return reply

        monkeypatch.setattr(provider, "refresh", locked_meanwhile)
        expire()

        token = tokens.get_access_token(user)

        threads[0].join()
        assert token == row().access_token

    def test_a_claim_does_not_wait_for_ever(
        self, user: Any, monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox
    ) -> None:
        if connection.vendor == "sqlite":
            pytest.skip("SQLite waits as long as its own timeout says")
        monkeypatch.setattr(tokens, "LOCK_PATIENCE", 0.1)
        expire()
        thread = self.lock(1)

        with pytest.raises(ProviderUnavailable, match="did not give the token row") as caught:
            tokens.get_access_token(user)

        thread.join()
        assert caught.value.request_sent is False
        assert sandbox.requests() == []

    def test_disconnecting_does_not_wait_for_ever(
        self, user: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if connection.vendor == "sqlite":
            pytest.skip("SQLite waits as long as its own timeout says")
        monkeypatch.setattr(accounts, "LOCK_PATIENCE", 0.1)
        thread = self.lock(1)

        with pytest.raises(ProviderUnavailable, match="disconnect again"):
            accounts.disconnect(user)

        thread.join()
        assert row().access_token

    def test_a_lease_of_the_future_is_none(self, user: Any, sandbox: Sandbox) -> None:
        """The clock was set back since."""
        QuotaToken.objects.update(lease_owner="x", lease_until=timezone.now() + timedelta(hours=1))
        expire()
        tokens.get_access_token(user)
        assert sandbox.requests() == RENEWAL

    @pytest.mark.parametrize(("deadline", "ahead"), [(1, 65), (20, 50), (100, 160)])
    def test_a_lease_of_a_longer_deadline_or_a_clock_ahead_is_one(
        self, user: Any, sandbox: Sandbox, settings: Any, deadline: float, ahead: float
    ) -> None:
        """While a longer QUOTA_DEADLINE is deployed, some processes have the shorter one."""
        settings.QUOTA_DEADLINE = deadline
        until = timezone.now() + timedelta(seconds=ahead)
        QuotaToken.objects.update(lease_owner="x", lease_until=until)
        assert not tokens.renew_unless_taken(row(), since=timezone.now())
        assert sandbox.requests() == []

    def test_no_call_of_bulk_work_on_a_lease_that_took_too_long_to_commit(
        self, user: Any, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It would end during the call, and others would spend the token again."""
        real = leases.take

        def take(row: QuotaToken, owner: str) -> None:
            real(row, owner)
            row.lease_until = timezone.now() + timedelta(seconds=leases.MARGIN)

        monkeypatch.setattr(leases, "take", take)

        with pytest.raises(ProviderUnavailable, match="too long") as caught:
            tokens.renew_unless_taken(row(), since=timezone.now())

        assert caught.value.request_sent is False
        assert sandbox.requests() == []

    def test_a_renewal_is_not_cut_short_by_its_callers_bound(
        self, user: Any, sandbox: Sandbox
    ) -> None:
        sandbox.set(latency={"/oauth/token": 0.5})
        expire()
        with transport.within(0.2):
            assert tokens.get_access_token(user) == row().access_token


class TestRaces:
    def during_the_call(
        self, monkeypatch: pytest.MonkeyPatch, what: Callable[[], Any]
    ) -> list[provider.TokenReply]:
        """Let `what` happen after Quota has answered a renewal and before that is saved."""
        replies: list[provider.TokenReply] = []
        real = provider.refresh

        def interrupted(refresh_token: str) -> provider.TokenReply:
            replies.append(real(refresh_token))
            what()
            return replies[-1]

        monkeypatch.setattr(provider, "refresh", interrupted)
        return replies

    def test_a_sign_in_during_a_renewal_wins(
        self, user: Any, person: Person, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        back = person.at_quota(person.start())
        replies = self.during_the_call(monkeypatch, lambda: person.come_back(back))
        old = row().refresh_token
        expire()

        token = tokens.get_access_token(user)

        assert token == row().access_token != replies[0].access_token
        queued = {pending.token for pending in PendingRevocation.objects.all()}
        assert queued == {old, replies[0].refresh_token}

    def test_a_disconnect_during_a_renewal_wins(
        self, user: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        replies = self.during_the_call(monkeypatch, lambda: accounts.disconnect(user))
        expire()

        with pytest.raises(NotConnected):
            tokens.get_access_token(user)

        assert not QuotaToken.objects.exists()
        assert replies[0].refresh_token in {p.token for p in PendingRevocation.objects.all()}

    def test_invalid_grant_is_not_believed_when_the_row_has_a_newer_pair(
        self, user: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        account = ProviderAccount.objects.get()

        def lost_race(refresh_token: str) -> provider.TokenReply:
            newer = provider.TokenReply(
                access_token="quota_token_newer",
                refresh_token="quota_refresh_newer",
                id_token=None,
                expires_in=3600,
                scope=None,
            )
            tokens.store(account, newer)
            raise ReauthenticationRequired("spent", provider_code="invalid_grant")

        monkeypatch.setattr(provider, "refresh", lost_race)
        expire()

        assert tokens.get_access_token(user) == "quota_token_newer"
        assert not row().needs_sign_in

    def test_an_owner_who_saves_late_comes_first(
        self, user: Any, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The database was away since Quota answered, say, until after the lease had ended."""
        monkeypatch.setattr(leases, "OWNER_FIRST", 60)
        looked = threading.Semaphore(0)
        real = leases.LateOwner.worth_a_lock

        def worth_a_lock(late: Any, row: QuotaToken) -> bool:
            looked.release()
            return real(late, row)

        monkeypatch.setattr(leases.LateOwner, "worth_a_lock", worth_a_lock)
        waiting: list[Any] = []

        def late() -> None:
            QuotaToken.objects.update(lease_until=timezone.now())
            waiting.append(pool.submit(in_threads, 2, lambda: tokens.get_access_token(user)))
            for _ in range(6):
                assert looked.acquire(timeout=60)

        replies = self.during_the_call(monkeypatch, late)
        expire()
        with ThreadPoolExecutor(1) as pool:
            token = tokens.get_access_token(user)
            assert waiting[0].result() == [token, token]
        assert token == replies[0].access_token == row().access_token
        assert sandbox.requests() == RENEWAL
        assert not PendingRevocation.objects.exists()

    def take_over(
        self,
        user: Any,
        monkeypatch: pytest.MonkeyPatch,
        clock: Clock,
        *,
        held: Callable[[], bool],
    ) -> list[float]:
        """When the row's lock was had by who takes it over from a late owner, while it is not
        `held` by others."""
        got: list[float] = []
        real = locking.locked

        def locked(*args: Any, **options: Any) -> Any:
            if held():
                raise OperationalError("locked")
            got.append(clock.now)
            return real(*args, **options)

        monkeypatch.setattr(locking, "locked", locked)
        QuotaToken.objects.update(lease_owner="late", lease_until=timezone.now())
        expire()
        tokens.get_access_token(user)
        return got

    @pytest.mark.parametrize("held", [0, 0.3, 5, 20])
    def test_a_late_owner_has_the_row_to_themselves_once_it_is_to_be_had(
        self,
        user: Any,
        sandbox: Sandbox,
        monkeypatch: pytest.MonkeyPatch,
        clock: Clock,
        held: float,
    ) -> None:
        """Whoever waits only could not have the lock; nor could they. Others hold it for so long;
        then the owner is asleep until their next attempt."""
        got = self.take_over(user, monkeypatch, clock, held=lambda: clock.now < held)

        taken_over = got[-2]  # then it is saved
        assert got[0] >= held
        assert got[0] + leases.OWNER_FIRST < taken_over < got[0] + leases.OWNER_FIRST + 1
        assert sandbox.requests() == RENEWAL

    @pytest.mark.parametrize("waits", [False, True])
    def test_a_lock_that_others_have_gives_a_late_owner_their_time_again(
        self,
        user: Any,
        sandbox: Sandbox,
        monkeypatch: pytest.MonkeyPatch,
        clock: Clock,
        waits: bool,
    ) -> None:
        """The row was to be had at first; from one second to ten it is not. SQLite `waits`."""

        def held() -> bool:
            if waits and 1 < clock.now < 10:
                clock.now = 10
            return 1 < clock.now < 10

        got = self.take_over(user, monkeypatch, clock, held=held)

        free_again = next(moment for moment in got if moment >= 10)
        assert got[-2] > free_again + leases.OWNER_FIRST
        assert sandbox.requests() == RENEWAL

    def test_who_waits_from_the_start_of_a_dead_owners_lease_replaces_them(
        self, user: Any, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, clock: Clock
    ) -> None:
        """However late their looks at the row come."""
        start = timezone.now()
        monkeypatch.setattr(timezone, "now", lambda: start + timedelta(seconds=clock.now))
        lease = timedelta(seconds=get_settings().deadline + leases.MARGIN)
        QuotaToken.objects.update(lease_owner="killed", lease_until=start + lease)
        expire()

        tokens.get_access_token(user)

        assert sandbox.requests() == RENEWAL

    def test_nobody_waits_for_a_locked_row_for_ever(
        self, user: Any, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, clock: Clock
    ) -> None:
        def locked(*args: Any, **options: Any) -> Any:
            raise OperationalError("locked")

        monkeypatch.setattr(locking, "locked", locked)
        QuotaToken.objects.update(lease_owner="late", lease_until=timezone.now())
        expire()

        with pytest.raises(ProviderUnavailable):
            tokens.get_access_token(user)

        assert leases.wait_time() < clock.now < leases.wait_time() + 1
        assert sandbox.requests() == []

    def test_a_valid_token_is_gone_on_with_while_its_owner_is_late(
        self, user: Any, sandbox: Sandbox
    ) -> None:
        QuotaToken.objects.update(lease_owner="late", lease_until=timezone.now())
        expire(10)
        assert tokens.get_access_token(user) == row().access_token
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

        assert tokens.get_access_token(user) == "quota_token_2"
        assert row().refresh_token == "quota_refresh_2"
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
            tokens.get_access_token(user)

        assert replies[0].refresh_token in {p.token for p in PendingRevocation.objects.all()}

    @pytest.mark.parametrize("version", [0, 1])
    def test_an_operator_who_asks_for_a_sign_in_during_a_failing_renewal_wins(
        self, user: Any, monkeypatch: pytest.MonkeyPatch, version: int
    ) -> None:
        """The old token is valid still, but not to be gone on with."""

        def refresh(refresh_token: str) -> provider.TokenReply:
            QuotaToken.objects.update(
                status=QuotaToken.Status.REAUTHENTICATION_REQUIRED, version=F("version") + version
            )
            raise ProviderUnavailable("down")

        monkeypatch.setattr(provider, "refresh", refresh)
        expire(20)

        with pytest.raises(ReauthenticationRequired):
            tokens.get_access_token(user)

    def test_the_lease_of_a_killed_worker_ends(self, user: Any, sandbox: Sandbox) -> None:
        past = timezone.now() - timedelta(seconds=leases.SAVE_PATIENCE)
        QuotaToken.objects.update(lease_owner="killed", lease_until=past)
        expire()

        tokens.get_access_token(user)

        assert sandbox.requests() == RENEWAL


class TestDates:
    """A save may come a minute after Quota's answer; the token lives from the answer on."""

    def save_late(self, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
        """It takes a minute to get the next lock."""
        now, locked = timezone.now, locking.locked

        def late(*args: Any, **options: Any) -> Any:
            clock.now = 60
            monkeypatch.setattr(timezone, "now", lambda: now() + timedelta(minutes=1))
            return locked(*args, **options)

        monkeypatch.setattr(locking, "locked", late)

    def of_the_answer(self) -> bool:
        answered_by = timezone.now() - timedelta(minutes=1)
        stored = row()
        return stored.updated_at <= answered_by and stored.expires_at <= answered_by + timedelta(
            seconds=3600
        )

    def test_of_a_renewal(
        self, user: Any, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, clock: Clock
    ) -> None:
        real = provider.refresh

        def refresh(refresh_token: str) -> provider.TokenReply:
            self.save_late(monkeypatch, clock)
            return real(refresh_token)

        monkeypatch.setattr(provider, "refresh", refresh)
        expire()
        tokens.get_access_token(user)
        assert self.of_the_answer()

    def test_of_a_sign_in(self, user: Any, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
        reply = provider.TokenReply(
            access_token="quota_token_new",
            refresh_token="quota_refresh_new",
            id_token=None,
            expires_in=3600,
            scope=None,
        )
        self.save_late(monkeypatch, clock)
        tokens.store(ProviderAccount.objects.get(), reply)
        assert self.of_the_answer()


class TestRevocation:
    @pytest.fixture
    def locked_out(self, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> provider.TokenReply:
        """The pair of a sign-in, and a token row that is locked for ever."""

        def locked(*args: Any, **options: Any) -> Any:
            raise OperationalError("locked")

        monkeypatch.setattr(locking, "locked", locked)
        return provider.TokenReply(
            access_token="quota_token_new",
            refresh_token="quota_refresh_new",
            id_token=None,
            expires_in=3600,
            scope=None,
        )

    @pytest.mark.parametrize("atomic", [False, True])
    def test_a_sign_in_that_cannot_be_saved_is_given_back(
        self, user: Any, locked_out: provider.TokenReply, atomic: bool
    ) -> None:
        """A transaction of the caller's is rolled back by the error."""
        if atomic and connection.vendor == "sqlite":
            pytest.skip("no other connection can write meanwhile")
        caller = transaction.atomic() if atomic else nullcontext()
        with pytest.raises(ProviderUnavailable, match="did not give the token row"), caller:
            tokens.store(ProviderAccount.objects.get(), locked_out)

        queued = [pending.token for pending in PendingRevocation.objects.all()]
        assert queued == ["quota_refresh_new"]

    def test_nor_can_it_be_given_back(
        self,
        user: Any,
        locked_out: provider.TokenReply,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def queue(refresh_token: str) -> None:
            raise InterfaceError(f"the database is away: {refresh_token}")

        monkeypatch.setattr(revocation, "queue", queue)
        with pytest.raises(ProviderUnavailable, match="did not give the token row"):
            tokens.store(ProviderAccount.objects.get(), locked_out)

        assert "could not be queued" in caplog.text
        assert "quota_refresh_" not in caplog.text

    def test_a_superseded_refresh_token_is_revoked(self, user: Any, person: Person) -> None:
        old = row().refresh_token
        person.sign_in()
        assert [pending.token for pending in PendingRevocation.objects.all()] == [old]

        assert revocation.revoke_pending() == 1

        assert not PendingRevocation.objects.exists()
        with pytest.raises(ReauthenticationRequired):
            provider.refresh(old)

    def test_a_token_that_goes_on_is_not_revoked(self, user: Any, sandbox: Sandbox) -> None:
        """A provider that does not rotate sends the same one again."""
        same = provider.TokenReply(
            access_token="quota_token_new",
            refresh_token=row().refresh_token,
            id_token=None,
            expires_in=60,
            scope=None,
        )
        tokens.store(ProviderAccount.objects.get(), same, asked="openid")
        assert not PendingRevocation.objects.exists()
        assert row().scope == "openid"

    def test_disconnecting_revokes(self, user: Any) -> None:
        old = row().refresh_token
        accounts.disconnect(user)

        assert revocation.revoke_pending() == 1
        with pytest.raises(ReauthenticationRequired):
            provider.refresh(old)

    def test_deleting_the_user_revokes(self, user: Any) -> None:
        old = row().refresh_token
        user.delete()
        assert [pending.token for pending in PendingRevocation.objects.all()] == [old]

    def test_an_outage_leaves_the_queue(self, user: Any, sandbox: Sandbox) -> None:
        accounts.disconnect(user)
        sandbox.set(fail={"path": "/oauth/revoke", "status": 503, "times": 1})

        assert revocation.revoke_pending() == 0
        assert PendingRevocation.objects.get().attempts == 1
        assert revocation.revoke_pending() == 1
