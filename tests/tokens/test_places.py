"""A site with a database per tenant: the same primary key is another person in each of them.

The tenant is in a router, for one thread only or for a context. The token that comes back is that
of the caller's tenant, or the call is refused.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import SyncToAsync
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connections, transaction
from django.test import RequestFactory
from django.utils import timezone
from pytest_django import DjangoDbBlocker
from pytest_django.fixtures import Settings

from django_quota.exceptions import ProviderUnavailable, RefreshImpossibleHere
from django_quota.models import ProviderAccount, QuotaToken, UsageRecord
from django_quota.oidc.time_limit import within
from django_quota.tokens import access, bulk
from django_quota.wallet import purchases, usage
from django_quota.wallet.balances import Balance, kept_balance
from django_quota.web.current import CurrentQuota
from tests.helpers.balances import cache_balance
from tests.helpers.concurrency import GIVE_UP_AFTER, run_async
from tests.light_provider import LightProvider

TENANTS = ("acme", "bolt")


class ThreadRouter:
    """Knows the tenant in the thread that has set it, else names the default database."""

    def __init__(self) -> None:
        self.local = threading.local()

    def set(self, name: str) -> None:
        self.local.name = name

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return getattr(self.local, "name", "default")

    db_for_write = db_for_read


class ContextRouter:
    """Knows the tenant in the context that has set it."""

    def __init__(self) -> None:
        self.name: ContextVar[str] = ContextVar("tenant", default="default")
        self.set = self.name.set

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return self.name.get()

    db_for_write = db_for_read


@pytest.fixture
def quota(settings: Settings) -> Iterator[LightProvider]:
    with LightProvider() as live:
        settings.QUOTA_BASE_URL = live.origin
        yield live


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Path:
    """An SQLite database with all tables, to be copied: `migrate` takes longer than a test."""
    file = tmp_path_factory.mktemp("tenants") / "migrated.sqlite3"
    own = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(file)}
    with pytest.MonkeyPatch.context() as patch, django_db_blocker.unblock():
        patch.setitem(connections.settings, "migrated", connections.settings["default"] | own)
        call_command("migrate", database="migrated", verbosity=0)
        connections["migrated"].close()
        del connections["migrated"]
    return file


@pytest.fixture(params=[ThreadRouter, ContextRouter])
def router(
    request: pytest.FixtureRequest,
    settings: Settings,
    tmp_path: Path,
    migrated: Path,
    django_db_blocker: DjangoDbBlocker,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Any]:
    """Two databases beside the default one, each with a user of key 1."""
    router = request.param()
    for name in ("default", *TENANTS):
        monkeypatch.setitem(
            connections.settings,
            name,
            {
                **connections.settings["default"],
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": str(tmp_path / f"{name}.sqlite3"),
                "OPTIONS": {"timeout": 20},
            },
        )
        shutil.copy(migrated, tmp_path / f"{name}.sqlite3")
    known = connections["default"]
    del connections["default"]
    settings.DATABASE_ROUTERS = [router]
    with django_db_blocker.unblock():
        for name in ("default", *TENANTS):
            make(name)
        yield router
        # Async code uses a thread that stays, with connections to these files.
        SyncToAsync.single_thread_executor.submit(forget_connections).result()
        forget_connections()
    connections["default"] = known


def forget_connections() -> None:
    for connection in connections.all(initialized_only=True):
        connection.close()
        del connections[connection.alias]


def make(name: str) -> None:
    user = get_user_model()(pk=1, username=name)
    user.save(using=name)
    account = ProviderAccount(pk=1, user_id=1, external_id=name)
    account.save(using=name)
    row = QuotaToken(pk=1, account_id=1, expires_at=timezone.now())
    row.access_token, row.refresh_token = f"quota_token_{name}.0", f"quota_refresh_{name}.0"
    row.save(using=name)


def expire() -> None:
    for name in TENANTS:
        rows = QuotaToken.objects.using(name)
        rows.update(expires_at=timezone.now() - timedelta(1), last_failure_at=None)


def user_of(name: str) -> Any:
    return get_user_model().objects.using(name).get(pk=1)


def in_a_transaction(user: Any) -> str:
    with transaction.atomic(using=user._state.db):
        return access.get_access_token(user)


def within_a_time_limit(user: Any) -> str:
    with within(20):
        return access.get_access_token(user)


WAYS: dict[str, Callable[[Any], str]] = {
    "plain": access.get_access_token,
    "within a time limit": within_a_time_limit,
    "in a transaction": in_a_transaction,
    "async": lambda user: run_async(access.aget_access_token(user)),
}


def ask(router: Any, name: str, way: str) -> str:
    """The name in the token that a visitor of that tenant gets, "refused" if that is the answer."""
    router.set(name)
    try:
        return WAYS[way](user_of(name)).removeprefix("quota_token_").partition(".")[0]
    except RefreshImpossibleHere:
        return "refused"


@pytest.mark.slow
class TestRenewal:
    @pytest.mark.parametrize("way", WAYS)
    def test_renewal_gives_the_token_of_the_callers_tenant_or_refuses(
        self, router: Any, quota: LightProvider, way: str
    ) -> None:
        thread = isinstance(router, ThreadRouter)
        refused = way == "in a transaction" or (way == "async" and thread)
        for name in TENANTS:
            expire()
            assert ask(router, name, way) == ("refused" if refused else name)
        router.set("default")
        default = QuotaToken.objects.using("default").get()
        assert default.access_token.reveal() == "quota_token_default.0"

    def test_two_tenants_at_once_share_no_renewal(self, router: Any, quota: LightProvider) -> None:
        expire()
        barrier = threading.Barrier(2, timeout=GIVE_UP_AFTER)
        got = {}

        def visit(name: str) -> None:
            router.set(name)
            barrier.wait()
            got[name] = ask(router, name, "within a time limit")
            connections.close_all()

        threads = [threading.Thread(target=visit, args=(name,)) for name in TENANTS]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got == {"acme": "acme", "bolt": "bolt"}

    def test_bulk_work_renews_the_tokens_of_the_tenant(
        self, router: Any, quota: LightProvider
    ) -> None:
        router.set("acme")
        assert bulk.refresh_expiring(timedelta(minutes=1)).renewed == 1
        assert quota.counts.outcomes == {"renewed": 1}
        assert stored("acme") == "quota_token_acme.1"
        assert stored("bolt") == "quota_token_bolt.0"

    def test_user_of_one_tenant_is_refused_where_the_router_names_another(
        self, router: Any, quota: LightProvider
    ) -> None:
        user = user_of("acme")
        router.set("bolt")
        with pytest.raises(RefreshImpossibleHere, match="another person's"):
            access.get_access_token(user)


def stored(name: str) -> str:
    return QuotaToken.objects.using(name).get().access_token.reveal()


class TestCache:
    """One for all tenants."""

    def test_balance_of_one_tenants_user_is_not_shown_to_anothers(self, router: Any) -> None:
        router.set("acme")
        cache_balance(user_of("acme"), 5)
        assert kept_balance(user_of("acme")) == Balance(credits=5)
        router.set("bolt")
        assert kept_balance(user_of("bolt")) is None

    def test_payment_page_of_one_tenants_user_is_not_given_to_anothers(
        self, router: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(purchases, "_with_token", lambda user, *how: f"page of {user.username}")
        for name in TENANTS:
            router.set(name)
            page = purchases.create_checkout(user_of(name), "p", success_url="", cancel_url="")
            assert page == f"page of {name}"

    def test_trouble_of_one_tenants_user_is_not_anothers(
        self, router: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def failing(user: Any, **options: Any) -> Balance:
            if user.username == "acme":
                raise ProviderUnavailable("no")
            return Balance(credits=1_000_000)

        monkeypatch.setattr(purchases, "_fetch_balance", failing)
        router.set("acme")
        assert purchases.balance_for_page(user_of("acme")).state == "unavailable"
        router.set("bolt")
        assert purchases.balance_for_page(user_of("bolt")).state == "available"

    def test_a_billed_call_costs_no_query_for_the_key(
        self, router: Any, django_assert_num_queries: Any
    ) -> None:
        router.set("acme")
        user = user_of("acme")
        QuotaToken.objects.using("acme").update(expires_at=timezone.now() + timedelta(1))
        with django_assert_num_queries(1, connection=connections["acme"]):
            access.get_access_token(user)
            cache_balance(user, 5)
            assert kept_balance(user) == Balance(credits=5)

    def test_a_page_with_a_kept_balance_costs_one_query(
        self, router: Any, django_assert_num_queries: Any
    ) -> None:
        router.set("acme")
        cache_balance(user_of("acme"), 5)
        user = user_of("acme")
        with django_assert_num_queries(1, connection=connections["acme"]):
            for _ in range(3):
                assert purchases.balance_for_page(user).balance == Balance(credits=5)

    def test_async_twin_refuses_where_the_router_forgets_the_tenant(self, router: Any) -> None:
        router.set("acme")
        user = user_of("acme")
        cache_balance(user_of("acme"), 5)
        if isinstance(router, ThreadRouter):
            with pytest.raises(RefreshImpossibleHere, match="ContextVar"):
                run_async(purchases.aget_balance(user))
        else:
            assert run_async(purchases.aget_balance(user)) == Balance(credits=5)


def test_user_of_another_database_without_a_router(
    router: Any, settings: Settings, rf: RequestFactory
) -> None:
    settings.DATABASE_ROUTERS = []
    QuotaToken.objects.using("default").all().delete()
    user = user_of("acme")
    request = rf.get("/")
    request.user = user
    reply = SimpleNamespace(id="c", model="m", model_extra={"quota": {"credits_used": 5}})

    usage.record_usage(user, reply)

    assert UsageRecord.objects.using("acme").get().user == user
    assert not UsageRecord.objects.using("default").exists()
    account = CurrentQuota(request).account
    assert account is not None
    assert account.external_id == "acme"
    assert CurrentQuota(request).connected
