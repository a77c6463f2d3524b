"""What happens at the very moment of a renewal: clocks apart, keys apart, a row that goes, a
database that says no, a process that forks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.contrib.auth import get_user_model
from django.db import InterfaceError, InternalError, connection, connections
from django.utils import timezone

from django_quota import connecting
from django_quota.conf import get_settings
from django_quota.exceptions import NotConnected, ProviderUnavailable, ReauthenticationRequired
from django_quota.models import PendingRevocation, ProviderAccount, QuotaToken
from django_quota.oidc import endpoints
from django_quota.tokens import leases, locking, revocation
from django_quota.tokens.access import aget_access_token, get_access_token
from django_quota.tokens.reencryption import reencrypt
from django_quota.tokens.single_flight import renewals
from tests.helpers import programs
from tests.helpers.concurrency import (
    begin_together,
    closes_connections,
    outcome,
    run_async,
    wait_until,
)
from tests.helpers.databases import ask_server, every_query, needs_second_connection
from tests.helpers.rows import expire, pair, store_tokens, token_reply
from tests.light_provider import LightProvider
from tests.storms.crew import make_users

pytestmark = [pytest.mark.storm, pytest.mark.django_db(transaction=True)]

NEW_PAIR = ("quota_token_u0.1", "quota_refresh_u0.1")
#: The number of transactions that wait for a lock of this connection; of this database in MariaDB.
WAITING_FOR_US = {
    "postgresql": """
        SELECT count(*) FROM pg_locks
        WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))
    """,
    "mysql": """
        SELECT count(*) FROM information_schema.innodb_trx
        JOIN information_schema.processlist ON id = trx_mysql_thread_id
        WHERE db = DATABASE() AND trx_state = 'LOCK WAIT'
    """,
}


@pytest.fixture
def user() -> Any:
    return make_users(1)[0]


def queued() -> list[str]:
    return sorted(pending.token.reveal() for pending in PendingRevocation.objects.all())


def at_the_answer(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """`happens` once, when Quota has answered and nothing is saved yet."""
    real = endpoints.refresh

    def refresh(refresh_token: str) -> endpoints.TokenReply:
        answer = real(refresh_token)
        monkeypatch.setattr(endpoints, "refresh", real)
        happens()
        return answer

    monkeypatch.setattr(endpoints, "refresh", refresh)


def test_a_lease_that_took_too_long_to_commit_is_no_time_for_a_call(
    user: Any, quota: LightProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica that has to confirm it hangs, say: the lease would end during the call."""
    looks: list[bool] = []
    real = leases.has_time_to_call

    def has_time_to_call(row: QuotaToken) -> bool:
        looks.append(True)
        if len(looks) > 1:
            return real(row)
        QuotaToken.objects.update(lease_until=timezone.now())
        row.lease_until = timezone.now() + timedelta(seconds=leases.MARGIN)
        return real(row)

    monkeypatch.setattr(leases, "has_time_to_call", has_time_to_call)
    assert get_access_token(user) == "quota_token_u0.1"
    assert len(looks) == 2
    assert quota.counts.sent.total() == 1


def test_a_row_under_a_key_that_this_process_has_not_got_yet(
    user: Any, quota: LightProvider, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    """Another one re-encrypts it while Quota answers: the new pair is saved all the same."""
    old, new = settings.FIELD_ENCRYPTION_KEY, Fernet.generate_key().decode()

    def another_process() -> None:
        settings.FIELD_ENCRYPTION_KEY = [new, old]
        reencrypt()
        settings.FIELD_ENCRYPTION_KEY = old

    at_the_answer(monkeypatch, another_process)
    assert get_access_token(user) == "quota_token_u0.1"
    assert pair() == NEW_PAIR


@needs_second_connection
@pytest.mark.parametrize("goes", ["disconnect", "delete"])
def test_what_a_renewal_brings_while_the_row_goes_is_revoked(
    user: Any, quota: LightProvider, monkeypatch: pytest.MonkeyPatch, goes: str
) -> None:
    """Not the token that it has spent."""
    real = revocation.queue
    begun: list[Any] = []

    @closes_connections
    def renew() -> str:
        return outcome(lambda: get_access_token(user))

    def queue(*args: Any, **options: Any) -> None:
        if not begun:  # between the look at the token and its end
            begun.append(pool.submit(renew))
            wait_until(lambda: begun[0].done() or ask_server(WAITING_FOR_US) > 0)
        real(*args, **options)

    with ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(revocation, "queue", queue)
        if goes == "disconnect":
            connecting.disconnect(user)
        else:
            get_user_model().objects.get().delete()
        begun[0].result(20)
    alive = {f"quota_refresh_u0.{family.generation}" for family in quota._families.values()}
    assert (alive or {"quota_refresh_u0.0"}) <= set(queued())


@pytest.mark.parametrize("kind", [InterfaceError, InternalError])
def test_a_database_that_says_no_when_the_pair_is_saved(
    user: Any, quota: LightProvider, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    """It is a standby for a moment, say, and takes no writes; it is asked again."""
    said: list[str] = []

    def no(execute: Any, *query: Any) -> Any:
        if answered and not said:
            said.append("no")
            raise kind("cannot execute SELECT FOR UPDATE in a read-only transaction")
        return execute(*query)

    answered: list[bool] = []
    at_the_answer(monkeypatch, lambda: answered.append(True))
    with every_query(no):
        assert get_access_token(user) == "quota_token_u0.1"
    assert (pair(), said) == (NEW_PAIR, ["no"])


def test_a_sign_in_whose_account_goes_gives_its_tokens_back(
    user: Any, quota: LightProvider
) -> None:
    account = ProviderAccount.objects.get()
    get_user_model().objects.all().delete()
    with pytest.raises(NotConnected):
        store_tokens(account, token_reply("in"))
    assert token_reply("in").refresh_token in queued()


def test_a_sign_in_whose_row_goes_gives_its_tokens_back(
    user: Any, quota: LightProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = locking.locked

    def locked(*args: Any, **options: Any) -> Any:
        QuotaToken.objects.all().delete()
        monkeypatch.setattr(locking, "locked", real)
        return real(*args, **options)

    monkeypatch.setattr(locking, "locked", locked)
    with pytest.raises(NotConnected):
        store_tokens(ProviderAccount.objects.get(), token_reply("in"))
    assert queued() == sorted(["quota_refresh_u0.0", str(token_reply("in").refresh_token)])


def test_a_process_that_ends_saves_what_it_renews_first(user: Any, quota: LightProvider) -> None:
    """A page has not waited for it; and then the server is stopped."""
    expire()
    quota.set(hang=True)
    with programs.start("end_during_renewal", QUOTA_BASE_URL=quota.origin) as ending:
        assert ending.stdout is not None
        assert ending.stdout.readline() == "ends\n"
        wait_until(lambda: quota.counts.sent)
        quota.set(hang=False)
        assert ending.wait(programs.GIVE_UP_AFTER) == 0
    assert pair() == NEW_PAIR


def test_a_process_that_was_forked_renews_in_threads_of_its_own(
    user: Any, quota: LightProvider
) -> None:
    """A server that loads the app and then forks, of which the first has renewed already."""
    expire()
    said = programs.run("fork_after_renewal", QUOTA_BASE_URL=quota.origin)
    assert said.split() == ["quota_token_u0.1", "quota_token_u0.2"]


def test_a_failure_is_not_noted_over_somebody_elses_renewal(
    user: Any, quota: LightProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They took us for dead, and their call goes on."""
    ends = timezone.now() + timedelta(seconds=20)

    def fail(refresh_token: str) -> endpoints.TokenReply:
        QuotaToken.objects.update(lease_owner="taker", lease_until=ends)
        raise ReauthenticationRequired("spent", provider_code="invalid_grant")

    monkeypatch.setattr(endpoints, "refresh", fail)
    expire()
    with pytest.raises(ProviderUnavailable, match="Another worker"):
        get_access_token(user)
    row = QuotaToken.objects.get()
    assert (row.lease_owner, row.lease_until, row.needs_sign_in) == ("taker", ends, False)


def test_event_loops_of_many_threads(quota: LightProvider) -> None:
    everybody = make_users(16)

    def work(user: Any) -> Callable[[], str]:
        async def ask() -> str:
            return await aget_access_token(user)

        return lambda: outcome(lambda: run_async(ask()))

    got = begin_together([work(user) for user in everybody])
    assert got == [f"quota_token_u{number}.1" for number in range(16)]
    assert not renewals.is_running()


@needs_second_connection
def test_a_project_that_commits_by_hand(
    user: Any, quota: LightProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AUTOCOMMIT = False: nobody would commit what is saved on a connection of our own."""
    connections.close_all()
    monkeypatch.setitem(connections.settings["default"], "AUTOCOMMIT", False)

    def view() -> str:
        try:
            return outcome(lambda: get_access_token(user))
        finally:
            connection.rollback()
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(view).result() == "quota_token_u0.1"
    monkeypatch.setitem(connections.settings["default"], "AUTOCOMMIT", True)
    assert pair() == NEW_PAIR


def test_a_late_reply_without_a_refresh_token(
    user: Any, quota: LightProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sign-in has won meanwhile: there is nothing to give back."""
    real = endpoints.refresh
    monkeypatch.setattr(
        endpoints, "refresh", lambda token: replace(real(token), refresh_token=None)
    )
    account = ProviderAccount.objects.get()
    at_the_answer(monkeypatch, lambda: store_tokens(account, token_reply("in")))
    assert get_access_token(user) == token_reply("in").access_token
    assert queued() == ["quota_refresh_u0.0"]


def test_disconnecting_beside_renewals(quota: LightProvider) -> None:
    """On SQLite a transaction that has read first could not write."""
    everybody = make_users(20, expire_in=3600)
    over = threading.Event()

    def renew() -> str:
        while not over.is_set():
            said = outcome(lambda: get_access_token(busy, rejected=get_access_token(busy)))
            if not said.startswith("quota_token_"):
                return said
        return ""

    def gone(user: Any) -> str:
        connecting.disconnect(user)
        return ""

    def leave() -> str:
        try:
            return "".join(said for user in everybody if (said := outcome(partial(gone, user))))
        finally:
            over.set()

    (busy,) = get_user_model().objects.bulk_create([get_user_model()(username="busy")])
    account = ProviderAccount.objects.create(user=busy, external_id="busy")
    QuotaToken.objects.create(
        account=account,
        access_token="quota_token_busy.0",
        refresh_token="quota_refresh_busy.0",
        expires_at=timezone.now() + timedelta(hours=1),
    )
    assert begin_together([renew, renew, leave]) == ["", "", ""]
    assert [row.account_id for row in QuotaToken.objects.all()] == [account.pk]


def test_a_lease_outlives_the_call(
    user: Any, quota: LightProvider, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    ends: list[Any] = []
    at_the_answer(monkeypatch, lambda: ends.append(QuotaToken.objects.get().lease_until))
    before = timezone.now()
    get_access_token(user)
    assert ends[0] >= before + timedelta(seconds=get_settings().deadline)


def test_a_superseded_token_is_queued_or_it_is_not_superseded(
    user: Any, quota: LightProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one transaction."""

    def broken(token: Any, **options: Any) -> None:
        raise RuntimeError("no space left")

    monkeypatch.setattr(revocation, "queue", broken)
    with pytest.raises(RuntimeError):
        store_tokens(ProviderAccount.objects.get(), token_reply("in"))
    assert pair() == ("quota_token_u0.0", "quota_refresh_u0.0")


@needs_second_connection
def test_a_caller_who_commits_by_hand_for_a_while(user: Any, quota: LightProvider) -> None:
    """`set_autocommit(False)`: their rollback brings no spent token back."""
    connection.set_autocommit(False)
    try:
        assert get_access_token(user) == "quota_token_u0.1"
        connection.rollback()
    finally:
        connection.set_autocommit(True)
    assert pair() == NEW_PAIR
