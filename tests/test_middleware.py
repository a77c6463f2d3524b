"""QuotaMiddleware and @quota_required: a wallet before the view, and states for errors."""

from __future__ import annotations

import logging
import re
from datetime import timedelta
from typing import Any
from unittest.mock import AsyncMock

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import AsyncClient, Client
from django.utils import timezone

from django_quota.exceptions import ConfigurationError
from django_quota.models import ProviderAccount, QuotaToken
from django_quota.web.signed_scopes import sign_scope
from tests.helpers.concurrency import run_async
from tests.helpers.error_answers import ANSWERS, mailed
from tests.helpers.rows import expire
from tests.sandbox_client import Person, Sandbox, query_of, wanted_at
from tests.urls_required import NAMED

pytestmark = pytest.mark.django_db(transaction=True)

MIDDLEWARE = "django_quota.middleware.QuotaMiddleware"
PAGE = {"accept": "text/html"}
VIEWS = ["plain", "awaited"]


@pytest.fixture(autouse=True)
def project(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.urls_required"
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, MIDDLEWARE]


@pytest.fixture
def atomic_requests(settings: Any) -> Any:
    """A transaction around every view, on the connection that is open already."""
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    yield
    connection.settings_dict["ATOMIC_REQUESTS"] = False


def asked_by_asgi(browser: Client, path: str) -> Any:
    """The answer under an async server."""

    async def ask() -> Any:
        client = AsyncClient(SERVER_NAME="localhost")
        client.cookies = browser.cookies
        answer = await client.get(path)
        return answer

    return run_async(ask())


class TestRequired:
    @pytest.mark.parametrize("path", VIEWS)
    def test_a_connected_user_comes_in(self, user: Any, person: Person, path: str) -> None:
        assert person.client.get(f"/{path}").content == b"quota_token_"

    def test_as_a_class(self, user: Any, person: Person) -> None:
        assert person.client.get("/class").content == b"a class"

    @pytest.mark.parametrize("path", [*VIEWS, "class", "spends", "aspends"])
    def test_a_visitor_signs_in_and_comes_back(self, client: Client, path: str) -> None:
        page = client.get(f"/{path}?a=b", headers=PAGE)
        assert wanted_at(page) == ("/auth/quota/start", {"next": f"/{path}?a=b"})
        answer = client.get(f"/{path}")
        assert answer.status_code == 401
        assert answer.json() == {
            "error": {
                "code": "not_connected",
                "message": "You have no Quota wallet connected here, so nothing can pay for this.",
                "hint": "Sign in with Quota, or connect your wallet.",
            },
            "login_url": "/auth/quota/start",
        }
        assert answer["Cache-Control"] == "no-store, private"

    @pytest.mark.parametrize("path", [*VIEWS, "class"])
    def test_visitor_of_a_site_with_its_own_sign_in_page_is_sent_there(
        self, client: Client, settings: Any, path: str
    ) -> None:
        settings.LOGIN_URL = "/login/"

        page = client.get(f"/{path}", headers={"accept": "text/html"})["Location"]
        script = client.get(f"/{path}", headers={"accept": "*/*"})

        assert page == f"/login/?next=%2F{path}"
        assert script.status_code == 401
        assert script.json()["login_url"].startswith("/login/")

    def test_a_user_without_a_wallet_connects_one(self, client: Client) -> None:
        """A sign-in would leave their session for another account."""
        client.force_login(
            get_user_model().objects.create(username="member"),
            "django.contrib.auth.backends.ModelBackend",
        )
        assert wanted_at(client.get("/plain", headers=PAGE))[0] == "/auth/quota/connect"

    def test_after_a_post_nobody_comes_back_to_it(self, client: Client) -> None:
        assert client.post("/plain", headers=PAGE)["Location"] == "/auth/quota/start"

    @pytest.mark.parametrize("path", ["spends", "aspends"])
    def test_scopes(self, person: Person, settings: Any, path: str) -> None:
        person.sign_in()
        assert person.client.get(f"/{path}").content == b"spent"
        settings.QUOTA_SCOPES = "openid credits.read"
        person.sign_in()
        answer = person.client.get(f"/{path}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_scope")

    @pytest.mark.parametrize("path", ["spends", "aspends"])
    def test_scopes_under_asgi(self, person: Person, settings: Any, path: str) -> None:
        person.sign_in()
        assert asked_by_asgi(person.client, f"/{path}").content == b"spent"
        settings.QUOTA_SCOPES = "openid credits.read"
        person.sign_in()
        assert asked_by_asgi(person.client, f"/{path}").status_code == 403

    @pytest.mark.parametrize("attribute", ["user", "auser"])
    def test_whom_a_middleware_of_the_project_names_pays(
        self,
        user: Any,
        person: Person,
        client: Client,
        settings: Any,
        monkeypatch: pytest.MonkeyPatch,
        attribute: str,
    ) -> None:
        """By a key of its API, say, and not who is signed in. It may leave Django's `request.user`
        beside its own `auser`."""
        ours = "tests.urls_required.names_the_user"
        settings.MIDDLEWARE = [*settings.MIDDLEWARE[:-1], ours, MIDDLEWARE]
        member = get_user_model().objects.create(username="member")

        def asked_for(named: Any, browser: Client) -> int:
            value = named if attribute == "user" else AsyncMock(return_value=named)
            monkeypatch.setitem(NAMED, attribute, value)
            return int(asked_by_asgi(browser, "/aspends").status_code)

        assert asked_for(user, client) == 200
        assert asked_for(member, person.client) == 401

    @pytest.mark.parametrize("path", [*VIEWS, "class", "spends", "aspends"])
    def test_without_the_middleware_nothing_runs(self, settings: Any, path: str) -> None:
        settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if name != MIDDLEWARE]
        with pytest.raises(ConfigurationError, match="check of @quota_required did not run"):
            Client().get(f"/{path}")

    @pytest.mark.parametrize("path", ["stacked", "stacked-the-other-way"])
    def test_on_top_of_each_other_all_scopes_count(
        self, person: Person, settings: Any, path: str
    ) -> None:
        settings.QUOTA_SCOPES = "openid credits.read"
        person.sign_in()
        assert person.client.get(f"/{path}").status_code == 403

    def test_a_class_that_hides_its_scopes_does_not_run(
        self, person: Person, settings: Any
    ) -> None:
        """method_decorator lets the base class's mark win: nobody has looked at the other one."""
        settings.QUOTA_SCOPES = "openid credits.read"
        person.sign_in()
        with pytest.raises(ConfigurationError, match="check of @quota_required did not run"):
            person.client.get("/inherited")

    def test_settings_that_are_wrong_stay_an_error(self, person: Person, settings: Any) -> None:
        """Nothing that the visitor could do would mend them."""
        person.sign_in()
        expire()
        settings.QUOTA_CLIENT_ID = ""
        with pytest.raises(ConfigurationError):
            person.client.get("/plain")

    @pytest.mark.parametrize("path", VIEWS)
    def test_under_asgi(self, user: Any, person: Person, sandbox: Sandbox, path: str) -> None:
        expire()
        assert asked_by_asgi(person.client, f"/{path}").content == b"quota_token_"
        assert sandbox.requests() == ["POST /oauth/token"]

    def test_a_view_without_the_mark_costs_nothing(
        self, user: Any, person: Person, django_assert_num_queries: Any
    ) -> None:
        expire()
        with django_assert_num_queries(0):
            assert Client(SERVER_NAME="localhost").get("/auth/quota/error").status_code == 200


class TestAtomicRequests:
    def test_an_expired_token_is_renewed_before_the_transaction(
        self, atomic_requests: None, user: Any, person: Person, sandbox: Sandbox
    ) -> None:
        """On SQLite, too, where it cannot be renewed inside."""
        expire()
        assert person.client.get("/plain").content == b"quota_token_"
        assert sandbox.requests() == ["POST /oauth/token"]
        user.refresh_from_db()
        assert user.last_name == "seen"

    def test_without_the_mark_sqlite_could_not(
        self, atomic_requests: None, user: Any, person: Person, sandbox: Sandbox
    ) -> None:
        """So that the test above shows something: here the view itself comes upon it."""
        expire()
        answer = person.client.get("/unmarked")
        if connection.vendor == "sqlite":
            assert answer.json()["error"]["code"] == "refresh_impossible_here"
            assert sandbox.requests() == []
        else:
            assert answer.content == b"quota_token_"


class TestStates:
    """An error in the middle of a view."""

    @pytest.mark.parametrize(
        ("error", "member", "url"),
        [
            ("NotConnected", "login_url", "/auth/quota/connect?next=%2Freports%3Fpage%3D2"),
            ("InsufficientCredits", "topup_url", "/auth/quota/packages?next=%2Freports%3Fpage%3D2"),
        ],
    )
    def test_a_script_comes_back_to_its_page(
        self, client: Client, user: Any, error: str, member: str, url: str
    ) -> None:
        client.force_login(get_user_model().objects.create(username="bob"))
        page = "http://testserver/reports?page=2"
        answer = client.post(f"/raises/{error}", headers={"Referer": page, "Accept": "*/*"})
        assert answer.json()[member] == url
        elsewhere = {"Referer": "https://evil.example/", "Accept": "*/*"}
        answer = client.post(f"/raises/{error}", headers=elsewhere)
        assert "next" not in answer.json()[member]

    @pytest.mark.parametrize("path", ["raises", "araises"])
    @pytest.mark.parametrize(("error", "status", "members"), ANSWERS)
    def test_as_json(
        self,
        client: Client,
        path: str,
        error: str,
        status: int,
        members: dict[str, str],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        client.force_login(
            get_user_model().objects.create(username="member"),
            "django.contrib.auth.backends.ModelBackend",
        )
        answer = client.get(f"/{path}/{error}")
        assert answer.status_code == status
        body = answer.json()
        told = body.pop("error")
        assert body == members
        # What an operator should know is in the log, under the reference that the person has.
        lines = [r.getMessage() for r in caplog.records if r.name == "django_quota.answers"]
        expected = [] if members else [f"{told['code']}: for the log [{told['reference']}]"]
        assert lines == expected
        assert "for the log" not in answer.content.decode()
        assert told["message"] and told["hint"]

    @pytest.mark.parametrize(
        ("error", "path", "query"),
        [
            ("NotConnected", "/auth/quota/start", {}),
            ("InsufficientCredits", "/auth/quota/packages", {"reason": "insufficient_credits"}),
            ("InsufficientScope", "/auth/quota/error", {"quota_error": "insufficient_scope"}),
            *(
                (name, "/auth/quota/error", {"quota_error": code, "quota_retry": "page"})
                for name, code in (
                    ("SpendingLimitReached", "spending_limit_reached"),
                    ("ProviderUnavailable", "provider_unavailable"),
                    ("RateLimited", "rate_limited"),
                    ("TokenUnreadable", "token_unreadable"),
                )
            ),
        ],
    )
    def test_as_a_page(self, client: Client, error: str, path: str, query: dict[str, str]) -> None:
        page = client.get(f"/raises/{error}?a=b", headers=PAGE)
        there, said = wanted_at(page)
        assert ("quota_ref" in said) is ("quota_retry" in said)
        said.pop("quota_ref", None)
        assert (there, said) == (path, {**query, "next": f"/raises/{error}?a=b"})

    def test_the_error_page_says_what_it_was_and_leads_back(self, client: Client) -> None:
        page = client.get("/raises/TokenUnreadable?a=b", headers=PAGE)
        text = client.get(page["Location"]).content.decode()
        assert "Your wallet cannot be used" in text
        assert 'href="/raises/TokenUnreadable?a=b"' in text

    def test_how_long_to_wait_is_said(self, client: Client) -> None:
        assert client.get("/limited")["Retry-After"] == "7"
        assert "Retry-After" not in client.get("/raises/RateLimited")

    def test_what_the_developer_must_mend_stays_an_error(self, client: Client) -> None:
        with pytest.raises(ConfigurationError):
            client.get("/raises/ConfigurationError")


class TestMailToAdmins:
    """Django mails what it logs of a status above 499: in an outage, one mail a request."""

    @pytest.mark.parametrize("path", ["raises", "araises"])
    def test_not_for_an_outage(
        self, client: Client, path: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert client.get(f"/{path}/ProviderUnavailable").status_code == 503
        assert client.get(f"/{path}/ProviderUnavailable", headers=HTMX).status_code == 503
        assert not mailed(caplog)
        assert ("django.request", logging.WARNING, f"Service Unavailable: /{path}/") in [
            (name, level, text[: len(f"Service Unavailable: /{path}/")])
            for name, level, text in caplog.record_tuples
        ]

    @pytest.mark.parametrize("error", ["TokenUnreadable", "RefreshImpossibleHere"])
    def test_for_what_an_operator_must_mend(
        self, client: Client, error: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert client.get(f"/raises/{error}").status_code >= 500
        assert mailed(caplog)


HTMX = {"HX-Request": "true", "HX-Current-URL": "http://testserver/reports?page=2#row"}


class TestHtmx:
    """It would follow a redirect by itself, and swap a sign-in page into the open one."""

    @pytest.mark.parametrize("path", ["raises", "araises"])
    @pytest.mark.parametrize("method", ["get", "post"])
    @pytest.mark.parametrize(
        ("error", "status", "there"),
        [
            ("NotConnected", 401, "/auth/quota/start"),
            ("InsufficientCredits", 402, "/auth/quota/packages"),
            ("ProviderUnavailable", 503, "/auth/quota/error"),
        ],
    )
    def test_is_sent_on_and_comes_back_to_the_page(
        self, client: Client, path: str, method: str, error: str, status: int, there: str
    ) -> None:
        answer = getattr(client, method)(f"/{path}/{error}", headers=HTMX)
        url, query = wanted_at({"Location": answer["HX-Redirect"]})
        assert (answer.status_code, url, query["next"]) == (status, there, "/reports?page=2#row")
        assert answer.content == b""

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "https://evil.example/",
            "//evil.example",
            "http://testserver//evil.example/",
            "http://testserver",
            "javascript:alert(1)",
            "http://[",
        ],
    )
    def test_comes_back_to_nowhere_else(self, client: Client, url: str) -> None:
        answer = client.get("/raises/NotConnected", headers=HTMX | {"HX-Current-URL": url})
        assert answer["HX-Redirect"] == "/auth/quota/start"

    def test_of_a_boosted_link_comes_back_to_where_it_leads(self, client: Client) -> None:
        answer = client.get("/raises/NotConnected?a=b", headers=HTMX | {"HX-Boosted": "true"})
        _, query = wanted_at({"Location": answer["HX-Redirect"]})
        assert query["next"] == "/raises/NotConnected?a=b"

    @pytest.mark.parametrize("value", ["false", "1", ""])
    def test_is_nobody_else(self, client: Client, value: str) -> None:
        answer = client.get("/raises/NotConnected", headers=HTMX | PAGE | {"HX-Request": value})
        assert answer.status_code == 302
        assert wanted_at(answer)[1]["next"] == "/raises/NotConnected"

    def test_before_the_view(self, client: Client) -> None:
        answer = client.get("/plain", headers=HTMX)
        assert answer["HX-Redirect"].startswith("/auth/quota/start?next=%2Freports")


class TestSignInThatHasNotHelped:
    """Quota refuses even the tokens of a new sign-in. Without a word it would sign in again."""

    URL = "/raises/ReauthenticationRequired"

    def test_leads_to_the_error_page(self, user: Any, person: Person) -> None:
        where, query = wanted_at(person.client.get(self.URL, headers=PAGE))
        assert (where, query["next"]) == ("/auth/quota/error", self.URL)
        page = person.client.get(where, query).content.decode()
        assert "Please sign in again" in page
        assert "/auth/quota/start?next=%2Fraises" in page

    def test_of_a_while_ago(self, user: Any, person: Person) -> None:
        ProviderAccount.objects.update(last_sign_in_at=timezone.now() - timedelta(minutes=2))
        assert wanted_at(person.client.get(self.URL, headers=PAGE))[0] == "/auth/quota/start"

    def test_of_tokens_that_were_ended_since(self, user: Any, person: Person) -> None:
        QuotaToken.objects.update(status=QuotaToken.Status.REAUTHENTICATION_REQUIRED)
        assert wanted_at(person.client.get(self.URL, headers=PAGE))[0] == "/auth/quota/start"

    def test_a_script_is_told_as_ever(self, user: Any, person: Person) -> None:
        answer = person.client.get(self.URL)
        assert (answer.status_code, answer.json()["login_url"]) == (401, "/auth/quota/start")


class TestConsent:
    """A scope that the token lacks is asked for, then the person comes back."""

    @pytest.fixture(autouse=True)
    def few_scopes(self, settings: Any, sandbox: Sandbox) -> None:
        settings.QUOTA_SCOPES = "openid credits.read"

    def asked(self, url: str) -> set[str]:
        return set(query_of(url)["scope"].split())

    @pytest.mark.parametrize("path", ["spends", "aspends"])
    def test_is_asked_for_and_leads_back(self, person: Person, path: str) -> None:
        person.sign_in()
        page = person.client.get(f"/{path}?a=b", headers=PAGE)
        at_quota = person.client.get(page["Location"])["Location"]
        assert self.asked(at_quota) == {"openid", "credits.read", "credits.spend"}
        back = person.come_back(person.at_quota(at_quota))
        assert back["Location"] == f"/{path}?a=b"
        assert person.client.get(back["Location"]).content == b"spent"

    def test_is_not_asked_for_again_if_it_was_granted(self, person: Person, settings: Any) -> None:
        """Quota refuses the call all the same: the view and the sign-in would go on for ever."""
        page = person.client.get("/refused", headers=PAGE)
        assert wanted_at(page)[0] == "/auth/quota/start"
        settings.QUOTA_SCOPES = "openid credits.spend"
        person.sign_in()
        page = person.client.get("/refused", headers=PAGE)
        path, said = wanted_at(page)
        assert (path, said) == (
            "/auth/quota/error",
            {"quota_error": "insufficient_scope", "next": "/refused"},
        )

    def test_for_scripts(self, person: Person) -> None:
        person.sign_in()
        answer = person.client.get("/spends")
        assert answer.status_code == 403
        at_quota = person.client.get(answer.json()["login_url"])["Location"]
        assert "credits.spend" in self.asked(at_quota)

    def test_of_connect_wallet(self, client: Client, settings: Any) -> None:
        settings.QUOTA_CONNECT_SCOPES = "credits.read"
        client.force_login(
            get_user_model().objects.create(username="member"),
            "django.contrib.auth.backends.ModelBackend",
        )
        link = {"scope": sign_scope("credits.spend")}
        page = client.get("/auth/quota/connect", link).content.decode()
        scope = re.search(r'name="scope" value="([^"]+)"', page)
        assert scope is not None
        at_quota = client.post("/auth/quota/connect", {"scope": scope[1]})["Location"]
        assert self.asked(at_quota) == {"credits.read", "credits.spend"}
