"""A front end on another origin: its script gets URLs that it can follow, and people come back to
its page where QUOTA_ALLOWED_NEXT_HOSTS names its host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth import SESSION_KEY, get_user_model
from django.test import Client, RequestFactory
from django.urls import get_script_prefix, set_script_prefix
from pytest_django.fixtures import Settings
from rest_framework.test import APIClient

from django_quota.web.redirects import url_for_script
from tests.helpers.streams import events
from tests.sandbox_client import Person, Sandbox, query_of
from tests.upstream import Upstream, chunk

FRONT = "http://front.example"
#: What a browser sends along from a page of the front end's, by its default Referrer-Policy.
FROM_FRONT = {"Origin": FRONT, "Referer": f"{FRONT}/", "Accept": "*/*"}
BACKEND = "django.contrib.auth.backends.ModelBackend"
PATH = "/auth/quota/start"
URL = f"http://testserver{PATH}"


@pytest.fixture(autouse=True)
def project(settings: Settings) -> None:
    settings.ROOT_URLCONF = "tests.urls_required"
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django_quota.middleware.QuotaMiddleware"]
    settings.QUOTA_ALLOWED_NEXT_HOSTS = ["front.example"]


class TestForScript:
    @pytest.mark.parametrize(
        ("origin", "url"),
        [
            (None, PATH),
            ("http://testserver", PATH),
            ("http://TESTSERVER", PATH),
            ("https://testserver", PATH),  # a TLS proxy that Django has not been told of
            ("http://testserver:3000", URL),
            ("http://front.example", URL),
            ("http://testserver.evil.example", URL),
            ("null", URL),
            ("capacitor://localhost", URL),
            ("http://[front", URL),
            ("", URL),
        ],
    )
    def test_the_url_is_whole_where_origin_names_another_host(
        self, origin: str | None, url: str
    ) -> None:
        headers = {} if origin is None else {"Origin": origin}
        assert url_for_script(RequestFactory().get("/", headers=headers), PATH) == url

    @pytest.mark.parametrize("host", ["app.example:443", "app.example:80", "app.example"])
    def test_a_default_port_makes_no_other_origin(self, host: str) -> None:
        headers = {"Origin": "https://app.example", "Host": host}
        assert url_for_script(RequestFactory().get("/", headers=headers), PATH) == PATH

    def test_a_url_of_quotas_stays_as_it_is(self) -> None:
        request = RequestFactory().get("/", headers=FROM_FRONT)
        assert (
            url_for_script(request, "https://quota.example/x?y=z") == "https://quota.example/x?y=z"
        )


@pytest.mark.django_db
class TestErrors:
    @pytest.mark.parametrize(
        ("error", "member", "view"),
        [
            ("NotConnected", "login_url", "start"),
            ("ReauthenticationRequired", "login_url", "start"),
            ("InsufficientCredits", "topup_url", "packages"),
            ("InsufficientScope", "login_url", "start"),
        ],
    )
    @pytest.mark.parametrize("path", ["raises", "araises"])
    def test_json_for_another_origin_has_a_whole_url_that_comes_back(
        self, client: Client, path: str, error: str, member: str, view: str
    ) -> None:
        said = client.get(f"/{path}/{error}", headers=FROM_FRONT).json()
        assert said[member] == (
            f"http://testserver/auth/quota/{view}?next=http%3A%2F%2Ffront.example%2F"
        )

    def test_json_for_a_host_that_is_not_allowed_does_not_come_back(self, client: Client) -> None:
        evil = {"Origin": "http://evil.example", "Referer": "http://evil.example/"}
        assert client.get("/raises/NotConnected", headers=evil).json()["login_url"] == URL

    def test_json_for_the_same_origin_keeps_paths(self, client: Client) -> None:
        own = {"Origin": "http://testserver", "Referer": "http://testserver/chat"}
        said = client.post("/raises/NotConnected", headers=own).json()
        assert said["login_url"] == f"{PATH}?next=%2Fchat"

    def test_a_page_of_another_origin_is_redirected_by_path(self, client: Client) -> None:
        headers = FROM_FRONT | {"Accept": "text/html"}
        answer = client.get("/raises/NotConnected", headers=headers)
        assert answer["Location"] == f"{PATH}?next=%2Fraises%2FNotConnected"

    def test_django_rest_framework_answers_another_origin_likewise(
        self, settings: Settings
    ) -> None:
        settings.ROOT_URLCONF = "tests.urls_drf"
        settings.REST_FRAMEWORK = {
            "EXCEPTION_HANDLER": "django_quota.contrib.drf.exception_handler"
        }
        said = APIClient().get("/plain", headers=FROM_FRONT).json()
        assert said["login_url"] == f"{URL}?next=http%3A%2F%2Ffront.example%2F"

    def test_the_site_below_a_sub_path_is_named_with_it(self, client: Client, below: None) -> None:
        said = client.get("/raises/NotConnected", headers=FROM_FRONT).json()
        assert said["login_url"].startswith("http://testserver/shop/auth/quota/start?next=")

    @pytest.fixture
    def below(self, settings: Settings) -> Iterator[None]:
        before = get_script_prefix()
        settings.FORCE_SCRIPT_NAME = "/shop"
        set_script_prefix("/shop/")
        yield
        set_script_prefix(before)


@pytest.mark.django_db(transaction=True)
def test_an_error_in_a_stream_for_another_origin_has_a_whole_url(
    upstream: Upstream, person: Person, settings: Settings
) -> None:
    settings.ROOT_URLCONF = "tests.urls_streaming"
    upstream.say(chunk("first"), {"error": {"code": "insufficient_credits", "message": "none"}})
    upstream.end()
    body = person.client.get("/stream", headers=FROM_FRONT).getvalue().decode()
    (kind, said) = events(body)[-1]
    assert kind == "error"
    assert said["topup_url"] == (
        "http://localhost/auth/quota/packages?next=http%3A%2F%2Ffront.example%2F"
    )


@pytest.mark.django_db(transaction=True)
def test_a_person_from_another_origin_signs_in_and_is_back_there(person: Person) -> None:
    url = person.client.get("/plain", headers=FROM_FRONT).json()["login_url"]
    assert url.startswith("http://localhost/")
    at_quota = person.client.get(url.removeprefix("http://localhost"))["Location"]
    answer = person.come_back(person.at_quota(at_quota))
    assert answer["Location"] == f"{FRONT}/"
    assert SESSION_KEY in person.client.session


@pytest.mark.django_db(transaction=True)
class TestSigningOut:
    BYE = "https://front.example/bye"

    @pytest.fixture(autouse=True)
    def redirect(self, settings: Settings) -> None:
        settings.LOGOUT_REDIRECT_URL = self.BYE

    def test_quota_sends_people_to_logout_redirect_url_on_another_origin(
        self, sandbox: Sandbox, settings: Settings
    ) -> None:
        app: Any = sandbox.register_app(post_logout_redirect_uris=[self.BYE])
        settings.QUOTA_CLIENT_ID = app["client_id"]
        settings.QUOTA_CLIENT_SECRET = app["client_secret"]
        person = sandbox.person()
        person.sign_in()
        url = person.client.post("/auth/quota/logout", headers=FROM_FRONT).json()["logout_url"]
        assert query_of(url)["post_logout_redirect_uri"] == self.BYE
        assert person.at_quota(url) == self.BYE
        assert SESSION_KEY not in person.client.session

    @pytest.mark.parametrize("accept", ["text/html", "*/*"])
    def test_who_has_not_been_at_quota_goes_there_directly(
        self, client: Client, accept: str
    ) -> None:
        client.force_login(get_user_model().objects.create_user("member"), BACKEND)
        answer = client.post("/auth/quota/logout", headers=FROM_FRONT | {"Accept": accept})
        where = answer["Location"] if accept == "text/html" else answer.json()["logout_url"]
        assert where == self.BYE

    def test_a_path_is_whole_for_a_script_on_another_origin(
        self, client: Client, settings: Settings
    ) -> None:
        settings.LOGOUT_REDIRECT_URL = None
        answer = client.post("/auth/quota/logout", headers=FROM_FRONT)
        assert answer.json() == {"logout_url": "http://testserver/"}
        assert client.post("/auth/quota/logout").json() == {"logout_url": "/"}
