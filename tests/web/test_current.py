"""`request.quota`, and what QuotaMiddleware costs a view that does not look at it."""

from __future__ import annotations

import asyncio
import html
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from asgiref.sync import SyncToAsync
from django.contrib.auth import get_user_model
from django.test import AsyncClient, Client

from django_quota.models import QuotaToken
from tests.helpers.concurrency import run_async
from tests.sandbox_client import Person, Sandbox

pytestmark = pytest.mark.django_db(transaction=True)

LOOKS = ["looks", "alooks"]
PAGES = ["page", "apage"]
MIDDLEWARE = "django_quota.middleware.QuotaMiddleware"
ALL = {"at": ["account", "connected", "balance"]}

Ask = Callable[..., Any]


@pytest.fixture(autouse=True)
def project(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.urls_current"
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, MIDDLEWARE]


@pytest.fixture
def ask(client: Client) -> Ask:
    """Ask for a path: one that begins with "a" by an async server, any other by a sync one."""

    def asked(path: str, *, cookies: Any = None, **options: Any) -> Any:
        if not path.startswith("a"):
            browser: Any = Client(SERVER_NAME="localhost")
            browser.cookies = cookies or client.cookies
            return browser.get(f"/{path}", **options)

        async def answer() -> Any:
            browser: Any = AsyncClient(SERVER_NAME="localhost")
            browser.cookies = cookies or client.cookies
            answer = await browser.get(f"/{path}", **options)
            return answer

        return run_async(answer())

    return asked


@pytest.mark.parametrize("path", LOOKS)
class TestLooking:
    def test_at_a_wallet(self, ask: Ask, user: Any, person: Person, path: str) -> None:
        found = ask(path, query_params=ALL, cookies=person.client.cookies).json()
        assert found == {"account": "Ada Lovelace", "connected": True, "balance": "$1.00"}

    def test_asks_quota_once(
        self, ask: Ask, user: Any, person: Person, sandbox: Sandbox, path: str, settings: Any
    ) -> None:
        settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
        ask(path, query_params=ALL, cookies=person.client.cookies)
        assert sandbox.requests() == ["GET /v1/balance"]

    def test_of_a_visitor(self, ask: Ask, path: str) -> None:
        found = ask(path, query_params=ALL).json()
        assert found == {"account": None, "connected": False, "balance": None}

    def test_of_a_user_without_a_wallet(self, ask: Ask, client: Client, path: str) -> None:
        client.force_login(
            get_user_model().objects.create_user("member"),
            "django.contrib.auth.backends.ModelBackend",
        )
        found = ask(path, query_params=ALL).json()
        assert found == {"account": None, "connected": False, "balance": None}

    def test_of_who_must_sign_in_again(
        self, ask: Ask, user: Any, person: Person, path: str
    ) -> None:
        QuotaToken.objects.update(status=QuotaToken.Status.REAUTHENTICATION_REQUIRED)
        found = ask(path, query_params=ALL, cookies=person.client.cookies).json()
        assert found == {"account": "Ada Lovelace", "connected": False, "balance": None}

    def test_while_quota_is_down(
        self, ask: Ask, user: Any, person: Person, settings: Any, path: str
    ) -> None:
        settings.QUOTA_BASE_URL = "http://127.0.0.1:9"
        found = ask(path, query_params=ALL, cookies=person.client.cookies).json()
        assert found == {"account": "Ada Lovelace", "connected": True, "balance": None}


class TestQueries:
    """Beside those of Django for the session and the user."""

    @pytest.mark.parametrize(
        ("names", "queries"),
        [
            ([], 0),
            (["login_url", "connect_url", "topup_url"], 0),
            (["account"], 3),
            (["connected"], 3),
            (["account", "connected"], 4),
        ],
    )
    def test_only_of_what_is_looked_at_and_once(
        self,
        user: Any,
        person: Person,
        names: list[str],
        queries: int,
        django_assert_num_queries: Any,
    ) -> None:
        with django_assert_num_queries(queries):
            person.client.get("/looks", {"at": names})

    def test_none_for_a_visitor(self, client: Client, django_assert_num_queries: Any) -> None:
        with django_assert_num_queries(0):
            assert client.get("/looks", ALL).status_code == 200


class TestTemplates:
    @pytest.mark.parametrize("path", PAGES)
    def test_show_it(self, ask: Ask, user: Any, person: Person, path: str) -> None:
        page = ask(path, query_params={"a": "b"}, cookies=person.client.cookies)
        back = f"?next=%2F{path}%3Fa%3Db"
        assert html.unescape(page.content.decode()).split() == [
            "True",
            "Ada",
            "Lovelace",
            "$1.00",
            "available",
            f"/auth/quota/start{back}",
            f"/auth/quota/connect{back}",
            f"/auth/quota/packages{back}",
        ]

    def test_of_htmx_come_back_to_the_page(self, client: Client) -> None:
        at = {"HX-Request": "true", "HX-Current-URL": "http://testserver/reports"}
        urls = client.get("/looks", {"at": ["login_url", "topup_url"]}, headers=at).json()
        assert urls == {
            "login_url": "/auth/quota/start?next=%2Freports",
            "topup_url": "/auth/quota/packages?next=%2Freports",
        }

    def test_while_quota_is_down(self, user: Any, person: Person, settings: Any) -> None:
        settings.QUOTA_BASE_URL = "http://127.0.0.1:9"
        lines = person.client.get("/page").content.decode().splitlines()
        assert lines[1].split() == ["unavailable"]


class TestCaches:
    """A page that is kept for everybody has nobody's balance on it."""

    @pytest.mark.parametrize("path", ["/cached-page", "/cached-tag", "/cached-late"])
    def test_a_page_of_somebody_is_not_kept(
        self, user: Any, person: Person, client: Client, path: str
    ) -> None:
        mine = person.client.get(path)
        assert "$1.00" in mine.content.decode()
        assert "Cookie" in mine["Vary"]
        assert mine["Cache-Control"] == "private"
        assert "$1.00" not in client.get(path).content.decode()

    def test_nor_where_only_the_tag_is_installed(
        self, user: Any, person: Person, client: Client, settings: Any
    ) -> None:
        settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if name != MIDDLEWARE]
        assert "$1.00" in person.client.get("/cached-tag").content.decode()
        assert "$1.00" not in client.get("/cached-tag").content.decode()

    def test_nor_by_the_cache_of_the_whole_site(
        self, user: Any, person: Person, client: Client, settings: Any
    ) -> None:
        settings.MIDDLEWARE = [
            "django.middleware.cache.UpdateCacheMiddleware",
            *settings.MIDDLEWARE,
            "django.middleware.cache.FetchFromCacheMiddleware",
        ]
        assert "$1.00" in person.client.get("/tag").content.decode()
        assert "$1.00" not in client.get("/tag").content.decode()

    def test_nor_in_async_code(self, ask: Ask, user: Any, person: Person) -> None:
        mine = ask("apage", cookies=person.client.cookies)
        assert (mine["Vary"], mine["Cache-Control"]) == ("Cookie", "private")

    @pytest.mark.parametrize("path", ["/cached-public", "/cached-tag"])
    def test_a_page_of_nobody_is_kept(self, client: Client, path: str) -> None:
        first = client.get(path)
        assert "max-age=60" in first["Cache-Control"]
        assert "private" not in first["Cache-Control"]

    def test_a_page_that_shows_nothing_of_a_user_is_kept(self, user: Any, person: Person) -> None:
        answer = person.client.get("/cached-public")
        assert answer["Cache-Control"] == "max-age=60"


class TestThreads:
    """An async view that looks at nothing stays on the event loop."""

    @pytest.fixture
    def hops(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """What was sent to a thread, by the name of its module."""
        sent: list[str] = []
        real = SyncToAsync.__call__

        def noted(self: Any, *args: Any, **kwargs: Any) -> Awaitable[Any]:
            sent.append(str(getattr(self.func, "__module__", type(self.func).__module__)))
            return real(self, *args, **kwargs)

        monkeypatch.setattr(SyncToAsync, "__call__", noted)
        return sent

    def ask(self, path: str, **options: Any) -> tuple[Any, int]:
        """The answer, and the thread of the event loop."""

        async def answer() -> Any:
            return await AsyncClient(SERVER_NAME="localhost").get(path, **options)

        return asyncio.run(answer()), threading.get_ident()

    def test_a_view_that_is_not_marked(self, hops: list[str], settings: Any) -> None:
        settings.MIDDLEWARE = [MIDDLEWARE]
        answer, loop = self.ask("/unmarked")
        assert int(answer.content) == loop
        assert hops, "nothing is noted any more"
        assert [module for module in hops if module.startswith("django_quota")] == []

    def test_a_marked_one_costs_hops(self, hops: list[str], client: Client) -> None:
        """So that the test above shows something."""
        answer, _loop = self.ask("/marked")
        assert answer.status_code == 401
        assert [module for module in hops if module.startswith("django_quota")] != []

    def test_a_middleware_that_could_be_sync_only_would_cost_one(
        self, hops: list[str], settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("django_quota.middleware.QuotaMiddleware.async_capable", False)
        settings.MIDDLEWARE = [MIDDLEWARE]
        self.ask("/unmarked")
        assert [module for module in hops if module.startswith("django_quota")] != []
