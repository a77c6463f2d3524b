"""Transactions: none of ours is open while Quota is asked, and none of the caller's can undo it."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection, connections, transaction
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path
from pytest_django.fixtures import Settings

from django_quota.exceptions import RefreshImpossibleHere
from django_quota.models import PendingRevocation, ProviderAccount, QuotaToken
from django_quota.tokens import access, locking
from django_quota.tokens.access import get_access_token
from tests.helpers import programs
from tests.helpers.concurrency import (
    GIVE_UP_AFTER,
    begin_together,
    closes_connections,
    locked_elsewhere,
    outcome,
    wait_until,
)
from tests.helpers.databases import ask_server, needs_second_connection
from tests.helpers.rows import expire, pair, store_tokens, token_reply
from tests.light_provider import LightProvider
from tests.storms.crew import make_users

pytestmark = [pytest.mark.storm, pytest.mark.django_db(transaction=True)]

#: What the server knows of transactions of anybody but us in this database.
OPEN_TRANSACTIONS = {
    "postgresql": """
        SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND xact_start IS NOT NULL AND pid <> pg_backend_pid() AND backend_type = 'client backend'
    """,
    "mysql": """
        SELECT count(*) FROM information_schema.innodb_trx
        JOIN information_schema.processlist ON id = trx_mysql_thread_id
        WHERE db = DATABASE() AND id <> CONNECTION_ID()
    """,
}
CONNECTIONS = {
    "postgresql": """
        SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND backend_type = 'client backend'
    """,
    "mysql": "SELECT count(*) FROM information_schema.processlist WHERE db = DATABASE()",
}


def in_atomic(user: Any) -> str:
    with transaction.atomic():
        return get_access_token(user)


class TestDuringTheCall:
    def test_no_transaction_is_open(self, quota: LightProvider) -> None:
        """Neither of who renews nor of who waits."""
        (user,) = make_users(1)
        quota.set(hang=True)

        def look() -> str:
            wait_until(lambda: quota.counts.sent)
            try:
                if connection.vendor == "sqlite":
                    # Its one lock is free now, or this fails at once.
                    with connection.cursor() as cursor:
                        cursor.execute("PRAGMA busy_timeout = 0")
                        cursor.execute("BEGIN IMMEDIATE")
                        cursor.execute("ROLLBACK")
                else:
                    assert ask_server(OPEN_TRANSACTIONS) == 0
            finally:
                quota.set(hang=False)
            return "free"

        assert begin_together([lambda: get_access_token(user), look]) == [pair()[0], "free"]

    def test_others_write(self, quota: LightProvider) -> None:
        """Though sixteen are waiting for the token."""
        (user,) = make_users(1)
        quota.set(hang=True)

        def write() -> str:
            wait_until(lambda: quota.counts.sent)
            try:
                for n in range(20):
                    get_user_model().objects.create(username=f"new{n}")
                    QuotaToken.objects.filter(pk=0).update(scope="")
            finally:
                quota.set(hang=False)
            return "written"

        got = begin_together([write, *[lambda: get_access_token(user)] * 16])

        assert Counter(got) == {"written": 1, "quota_token_u0.1": 16}
        assert get_user_model().objects.count() == 21


def bill(request: HttpRequest) -> HttpResponse:
    """A view that spends a refresh token, writes, and fails."""
    user = get_user_model().objects.get()
    token = get_access_token(user)
    user.first_name = token
    user.save()
    raise ZeroDivisionError


urlpatterns = [path("bill", bill)]


class TestAtomicRequests:
    @pytest.fixture
    def page(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Client:
        monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
        settings.ROOT_URLCONF = __name__
        return Client(raise_request_exception=False)

    @needs_second_connection
    def test_the_new_pair_survives_the_view(self, quota: LightProvider, page: Client) -> None:
        (user,) = make_users(1)

        assert page.get("/bill").status_code == 500

        assert get_user_model().objects.get().first_name == ""
        assert pair() == ("quota_token_u0.1", "quota_refresh_u0.1")
        expire()
        assert get_access_token(user) == "quota_token_u0.2"

    def test_on_sqlite_the_token_is_not_even_spent(self, quota: LightProvider) -> None:
        if connection.vendor != "sqlite":
            pytest.skip("other databases renew it")
        (user,) = make_users(1)

        with pytest.raises(RefreshImpossibleHere, match="before the transaction begins"):
            in_atomic(user)

        assert not quota.counts.sent
        assert get_access_token(user) == "quota_token_u0.1"


@needs_second_connection
class TestInTheCallersTransaction:
    def test_its_own_connections_are_closed(self, quota: LightProvider) -> None:
        (user,) = make_users(1)
        before = ask_server(CONNECTIONS)

        got = begin_together([partial(outcome, partial(in_atomic, user))] * 16)

        assert Counter(got) == {"quota_token_u0.1": 16}
        assert quota.counts.sent.total() == 1
        wait_until(lambda: ask_server(CONNECTIONS) <= before)  # the server takes a moment

    @pytest.mark.parametrize("patience", [0.1, locking.LOCK_WAIT])
    def test_a_token_row_that_it_wrote(
        self, quota: LightProvider, monkeypatch: pytest.MonkeyPatch, patience: float
    ) -> None:
        """A clear answer instead of a wait for ourselves."""
        (user,) = make_users(1)
        monkeypatch.setattr(locking, "LOCK_WAIT", patience)

        with pytest.raises(RefreshImpossibleHere, match="locked"), transaction.atomic():
            QuotaToken.objects.update(scope="mine")
            get_access_token(user)

        assert not quota.counts.sent
        assert get_access_token(user) == "quota_token_u0.1"

    def test_a_sign_in_that_has_to_wait_for_the_row(
        self, quota: LightProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It must not take what the caller has written with it."""
        make_users(1)
        account = ProviderAccount.objects.get()
        monkeypatch.setattr(locking, "LOCK_WAIT", 30)
        with ThreadPoolExecutor(1) as pool, locked_elsewhere() as unlock:

            def unlock_beside(execute: Any, sql: str, *args: Any) -> Any:
                if "FOR UPDATE" in sql:
                    pool.submit(unlock)
                return execute(sql, *args)

            with transaction.atomic(), connection.execute_wrapper(unlock_beside):
                get_user_model().objects.update(first_name="Ada")
                store_tokens(account, token_reply("in"))

        assert get_user_model().objects.get().first_name == "Ada"
        assert pair() == ("quota_token_in.0", "quota_refresh_in.0")

    def test_rows_around_it_that_it_locked_or_wrote(self, quota: LightProvider) -> None:
        (user,) = make_users(1)
        with transaction.atomic():
            get_user_model().objects.select_for_update().get()
            ProviderAccount.objects.select_for_update().get()
            ProviderAccount.objects.update(name="Ada")
            get_user_model().objects.update(first_name="Ada")
            assert get_access_token(user) == "quota_token_u0.1"

    def test_a_row_that_it_deleted(self, quota: LightProvider) -> None:
        (user,) = make_users(1)
        with pytest.raises(RefreshImpossibleHere, match="locked"), transaction.atomic():
            wanted = access._found(user, None)
            assert not isinstance(wanted, str)
            QuotaToken.objects.all().delete()
            wanted.result()
        assert not quota.counts.sent
        assert get_access_token(user) == "quota_token_u0.1"


def _places_taken(stats: dict[str, int]) -> int:
    return stats.get("pool_size", 0) - stats.get("pool_available", 0)


class TestPool:
    """Django's pool of three, and as many callers that each hold a connection of it."""

    SIZE = 3

    @pytest.fixture
    def pooled(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        if connection.vendor != "postgresql":
            pytest.skip("Django pools connections to PostgreSQL alone")
        pytest.importorskip("psycopg_pool")
        connections.close_all()
        pool = {"min_size": 0, "max_size": self.SIZE, "timeout": GIVE_UP_AFTER}
        options = {**connections.settings["default"]["OPTIONS"], "pool": pool}
        monkeypatch.setitem(connections.settings["default"], "OPTIONS", options)
        yield
        connections.close_all()
        connection.close_pool()

    def test_callers_who_hold_all_of_it_are_served(
        self, quota: LightProvider, pooled: None
    ) -> None:
        """A renewal takes no place in it, so that callers cannot wait for each other's."""
        users = make_users(self.SIZE)
        connections.close_all()
        all_in = threading.Barrier(self.SIZE, timeout=GIVE_UP_AFTER)

        def work(user: Any) -> str:
            with transaction.atomic():
                get_user_model().objects.get(pk=user.pk)
                all_in.wait()
                said = outcome(lambda: get_access_token(user))
                all_in.wait()
                return said

        got = begin_together([partial(work, user) for user in users])

        assert got == [f"quota_token_u{n}.1" for n in range(self.SIZE)]

    def test_fifty_requests_that_wait_hold_their_own_places_only(
        self, quota: LightProvider, pooled: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The renewal takes no place, so a plain page gets the 51st at once."""
        monkeypatch.setitem(
            connections.settings["default"]["OPTIONS"],
            "pool",
            {"min_size": 0, "max_size": 51, "timeout": 30},
        )
        (user,) = make_users(1)
        connections.close_all()
        quota.set(hang=True)

        def request() -> str:
            get_user_model().objects.get(pk=user.pk)  # as the session's middleware does
            return get_access_token(user)

        def plain_page() -> str:
            stats = connection.pool.get_stats
            wait_until(lambda: quota.counts.sent and _places_taken(stats()) == 50)
            said = str(get_user_model().objects.count())
            said += f" {_places_taken(stats())}"
            quota.set(hang=False)
            return said

        got = begin_together([*[request] * 50, plain_page])

        assert got == [*["quota_token_u0.1"] * 50, "1 51"]
        assert sum(quota.counts.sent.values()) == 1

    def test_what_renews_keeps_its_connection(
        self, quota: LightProvider, pooled: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """All others of the pool are taken, and wanted, while Quota is asked and the row locked."""
        monkeypatch.setitem(connections.settings["default"]["OPTIONS"]["pool"], "timeout", 3)
        (user,) = make_users(1)
        connections.close_all()
        quota.set(hang=True)
        all_taken, over = threading.Barrier(3, timeout=30), threading.Event()

        def hold(row_too: bool) -> str:
            wait_until(lambda: quota.counts.sent)
            with transaction.atomic():
                if row_too:
                    QuotaToken.objects.update(scope="theirs")
                get_user_model().objects.get()
                all_taken.wait()
                over.wait(30)
            return "held"

        def want() -> str:
            """Takes any connection that comes free, and would keep it."""
            all_taken.wait()
            quota.set(hang=False)
            said = outcome(lambda: str(QuotaToken.objects.count()))
            over.set()
            return said

        got = begin_together(
            [
                lambda: outcome(lambda: get_access_token(user)),
                lambda: hold(True),
                lambda: hold(False),
                want,
            ]
        )

        assert got[:3] == ["quota_token_u0.1", "held", "held"]
        assert got[3].startswith("OperationalError")
        assert pair() == ("quota_token_u0.1", "quota_refresh_u0.1")


def test_a_database_in_memory_as_django_tests_have_it() -> None:
    """django_quota.testing where the whole database is one connection's."""
    programs.run("database_in_memory")


def test_fifty_sign_ins_during_a_renewal(quota: LightProvider) -> None:
    """The sign-in's pair survives, and both that it supersedes are given back."""
    (user,) = make_users(1)
    account = ProviderAccount.objects.get()
    with ThreadPoolExecutor(1) as pool:
        for n in range(50):
            quota.reset()
            quota.set(hang=True)
            expire()
            old = pair()[1]
            renewal = pool.submit(closes_connections(get_access_token), user)
            wait_until(lambda: quota.counts.sent)
            store_tokens(account, token_reply(f"in{n}"))
            quota.set(hang=False)

            assert renewal.result() == f"quota_token_in{n}.0"
            assert pair() == (f"quota_token_in{n}.0", f"quota_refresh_in{n}.0")
            renewed = old.removesuffix(".0") + ".1"
            queued = PendingRevocation.objects.all()
            assert Counter(pending.token.reveal() for pending in queued) == Counter([old, renewed])
            queued.delete()
