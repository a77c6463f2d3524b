"""A person who is sent to sign in where that does not help is shown a page that says so."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
from bs4 import BeautifulSoup
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client
from pytest_django.fixtures import Settings

from django_quota import connecting
from django_quota.models import ProviderAccount
from django_quota.web import outcomes
from django_quota.web.signed_scopes import sign_scope
from tests.sandbox_client import Person, Sandbox, query_of, wanted_at

pytestmark = pytest.mark.django_db(transaction=True)

LOGIN_REQUIRED = "django.contrib.auth.middleware.LoginRequiredMiddleware"
NOT_OPEN = "This page is not open to this account"
PAGE = {"accept": "text/html"}


@pytest.fixture(autouse=True)
def pages(settings: Settings) -> None:
    settings.ROOT_URLCONF = "tests.urls_circles"
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django_quota.middleware.QuotaMiddleware"]


@pytest.fixture
def login_required(settings: Settings) -> None:
    """Every page asks for a sign-in that is not marked."""
    settings.MIDDLEWARE = [
        LOGIN_REQUIRED if name.endswith("MessageMiddleware") else name
        for name in settings.MIDDLEWARE
    ]


def opens(person: Person, url: str) -> tuple[Any, int]:
    """What the person sees at the end of all redirects, and how often they came by Quota."""
    rounds = 0
    for _ in range(30):
        answer = person.client.get(url, headers=PAGE)
        if answer.status_code != 302:
            return answer, rounds
        url = answer["Location"]
        if url.startswith(person.sandbox.origin):
            rounds += 1
            back = urlsplit(person.at_quota(url))
            url = f"{back.path}?{back.query}"
    raise AssertionError(f"in a circle, at {url}")


class TestNotPermitted:
    @pytest.mark.parametrize("path", ["/boss", "/test"])
    def test_who_lacks_a_permission_is_told_so(
        self, person: Person, path: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        answer, rounds = opens(person, path)

        assert (answer.status_code, rounds) == (200, 1)
        soup = BeautifulSoup(answer.content, "html.parser")
        assert soup.h1 is not None and soup.h1.text == NOT_OPEN
        assert person.email in soup.text
        links = {link.text: link["href"] for link in soup.find_all("a")}
        assert links == {
            "Sign in as somebody else": f"/auth/quota/start?prompt=login&next=%2F{path[1:]}",
            "Back to the home page": "/",
        }
        assert "they lack a permission" in caplog.text

    def test_signed_in_before_they_come_by_quota_once(self, person: Person) -> None:
        person.sign_in()
        assert opens(person, "/boss")[1] == 1

    def test_who_gets_the_permission_meanwhile_comes_in(self, person: Person) -> None:
        opens(person, "/boss")
        user = get_user_model().objects.get()
        user.user_permissions.add(Permission.objects.get(codename="delete_user"))
        assert opens(person, "/boss")[0].content == b"here"

    def test_somebody_else_signs_in_there(self, person: Person, sandbox: Sandbox) -> None:
        """Quota asks for the password, although it knows the person."""
        boss = sandbox.person()
        boss.sign_in()
        user = get_user_model().objects.get()
        user.user_permissions.add(Permission.objects.get(codename="delete_user"))
        opens(person, "/boss")

        url = person.start(prompt="login", next="/boss")
        assert query_of(url)["prompt"] == "login"
        assert "password" in person.quota.get(url, timeout=20).text
        boss.client, boss.quota = person.client, person.quota
        assert boss.come_back(boss.at_quota(url))["Location"] == "/boss"
        assert person.client.get("/boss").content == b"here"

    def test_the_same_person_again_is_told_again(self, person: Person) -> None:
        opens(person, "/boss")
        back = person.at_quota(person.start(prompt="login", next="/boss"))
        answer, rounds = opens(person, person.come_back(back)["Location"])
        assert (NOT_OPEN in answer.content.decode(), rounds) == (True, 0)

    def test_htmx_is_sent_on_to_that_page(self, person: Person) -> None:
        person.sign_in(next="/boss")
        answer = person.client.get(
            "/auth/quota/start", {"next": "/boss"}, headers={"HX-Request": "true"}
        )
        assert answer["HX-Redirect"] == "/auth/quota/error?quota_error=not_permitted&next=%2Fboss"

    @pytest.mark.parametrize("prompt", ["", "none", "login consent", "x"])
    def test_another_prompt_is_not_passed_on(self, person: Person, prompt: str) -> None:
        assert "prompt" not in query_of(person.start(prompt=prompt))

    @pytest.mark.parametrize("path", ["/without-next", "/counts/0"])
    def test_a_circle_of_another_form_ends_too(
        self, person: Person, path: str, settings: Settings
    ) -> None:
        settings.LOGIN_REDIRECT_URL = path
        answer, rounds = opens(person, path)
        assert NOT_OPEN in answer.content.decode()
        assert rounds == outcomes.MAX_ROUNDS


class TestNoCircle:
    def test_later_than_a_moment(
        self, person: Person, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        person.sign_in(next="/boss")
        now = outcomes.time.time()
        monkeypatch.setattr(outcomes.time, "time", lambda: now + outcomes.RECENT_SECONDS + 1)
        assert person.start(next="/boss").startswith(sandbox.origin)

    def test_another_page(self, person: Person, sandbox: Sandbox) -> None:
        person.sign_in(next="/boss")
        assert person.start(next="/mine").startswith(sandbox.origin)

    def test_another_scope(self, person: Person, sandbox: Sandbox) -> None:
        person.sign_in(next="/boss")
        url = person.start(next="/boss", scope=sign_scope("credits.spend"))
        assert url.startswith(sandbox.origin)

    def test_who_has_signed_out(self, person: Person, sandbox: Sandbox) -> None:
        person.sign_in(next="/boss")
        person.client.post("/auth/quota/logout")
        assert person.start(next="/boss").startswith(sandbox.origin)

    def test_who_has_disconnected(self, person: Person, sandbox: Sandbox) -> None:
        """A view that bills sends them to sign in, and that helps."""
        person.sign_in(next="/billed")
        connecting.disconnect(ProviderAccount.objects.get().user)
        assert opens(person, "/billed")[0].content == b"here"

    def test_a_button_is_clicked_twice(self, person: Person, sandbox: Sandbox) -> None:
        person.sign_in()
        assert person.start().startswith(sandbox.origin)


class TestFailure:
    """The page that is to say why shows itself to nobody who is not signed in."""

    @pytest.fixture(autouse=True)
    def closed(self, settings: Settings, login_required: None) -> None:
        settings.QUOTA_ERROR_URL = "/"
        settings.QUOTA_CREATE_USER = False

    def test_who_cannot_sign_in_is_told_why(self, person: Person) -> None:
        answer, rounds = opens(person, "/mine")
        assert (answer.status_code, rounds) == (200, 1)
        assert "No new accounts" in answer.content.decode()
        soup = BeautifulSoup(answer.content, "html.parser")
        retry = soup.find("a", string="Try again")
        assert retry is not None and retry["href"] == "/auth/quota/start?next=%2Fmine"
        assert soup.code is not None and len(soup.code.text) == 8

    def test_where_the_page_for_it_drops_the_query(
        self, person: Person, settings: Settings
    ) -> None:
        settings.QUOTA_ERROR_URL = "/without-next"
        answer, rounds = opens(person, "/mine")
        assert (answer.status_code, rounds) == (200, 1)
        assert "No new accounts" in answer.content.decode()

    def test_trying_again_is_one_more_round(self, person: Person, settings: Settings) -> None:
        opens(person, "/mine")
        answer, rounds = opens(person, "/auth/quota/start?next=/mine")
        assert (answer.status_code, rounds) == (200, 1)
        settings.QUOTA_CREATE_USER = True
        answer, rounds = opens(person, "/auth/quota/start?next=/mine")
        assert (answer.content, rounds) == (b"here", 1)

    def test_quota_is_down(self, sandbox: Sandbox, settings: Settings) -> None:
        settings.QUOTA_BASE_URL = "http://127.0.0.1:9"
        answer, rounds = opens(sandbox.person(), "/mine")
        assert (answer.status_code, rounds) == (200, 0)
        assert "Quota cannot be reached" in answer.content.decode()

    def test_a_browser_without_cookies(self, sandbox: Sandbox) -> None:
        class Forgetful(Client):
            def request(self, **request: Any) -> Any:
                self.cookies.clear()
                return super().request(**request)

        person = sandbox.person(Forgetful(SERVER_NAME="localhost"))
        answer, rounds = opens(person, "/mine")
        assert (answer.status_code, rounds) == (200, 1)
        assert "This sign-in has expired" in answer.content.decode()

    def test_what_was_shown_is_no_obstacle(
        self, person: Person, sandbox: Sandbox, settings: Settings
    ) -> None:
        """A button on the page that says why, which leads back to it."""
        settings.QUOTA_ERROR_URL = "/says-why"
        answer, rounds = opens(person, "/mine")
        assert (rounds, "No new accounts" in answer.content.decode()) == (1, True)
        here = answer.wsgi_request.get_full_path()
        settings.QUOTA_CREATE_USER = True
        assert person.sign_in(next=here)["Location"] == "/mine"

    @pytest.mark.parametrize(
        "failure",
        [
            "quota_error=x&quota_ref=y&to=1&self=2",
            "quota_error",
            "quota_error=%ff&quota_ref=%00&next=//evil.example",
        ],
    )
    def test_a_made_up_failure_is_no_500(
        self, sandbox: Sandbox, client: Client, failure: str
    ) -> None:
        answer = client.get("/auth/quota/start", {"next": f"/?{failure}"})
        assert answer.status_code == 302
        if not answer["Location"].startswith(sandbox.origin):
            page = client.get(answer["Location"])
            assert page.status_code == 200
            assert b"evil" not in page.content

    @pytest.mark.parametrize("kept", [7, [], {"at": "x"}, {"at": 1e400}])
    def test_a_session_of_another_version_is_no_500(self, person: Person, kept: Any) -> None:
        person.sign_in()
        session = person.client.session
        session[outcomes.LANDED_KEY] = session[outcomes.FAILED_KEY] = kept
        session.save()
        assert person.client.get("/auth/quota/start").status_code == 302


def test_a_marked_view_answers_a_fetch_under_login_required(
    client: Client, login_required: None
) -> None:
    """LoginRequiredMiddleware stands before QuotaMiddleware, and knows pages only."""
    answer = client.get("/billed")
    assert (answer.status_code, answer.json()["login_url"]) == (401, "/auth/quota/start")
    answer = client.get("/billed", headers={"HX-Request": "true"})
    assert answer["HX-Redirect"] == "/auth/quota/start"
    assert wanted_at(client.get("/billed", headers=PAGE)) == (
        "/auth/quota/start",
        {"next": "/billed"},
    )
