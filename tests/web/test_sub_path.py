"""A site below a sub-path: every way home leads to its own home, not to that of the host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from bs4 import BeautifulSoup
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import get_script_prefix, set_script_prefix
from pytest_django.fixtures import Settings

from tests.sandbox_client import Person, Sandbox, query_of, wanted_at

pytestmark = pytest.mark.django_db(transaction=True)

PAGE = {"accept": "text/html"}
BACKEND = "django.contrib.auth.backends.ModelBackend"


@pytest.fixture(autouse=True)
def below(settings: Settings) -> Iterator[None]:
    """FORCE_SCRIPT_NAME, and what a server does with it at each request."""
    before = get_script_prefix()
    settings.FORCE_SCRIPT_NAME = "/shop"
    set_script_prefix("/shop/")
    yield
    set_script_prefix(before)


@pytest.fixture
def person(sandbox: Sandbox, settings: Settings) -> Person:
    """Somebody who has signed in there; `client` asks for paths as they come to Django."""
    callback = "http://localhost/shop/auth/quota/callback"
    app = sandbox.register_app(
        redirect_uris=[callback], post_logout_redirect_uris=["http://localhost/shop/"]
    )
    settings.QUOTA_CLIENT_ID = app["client_id"]
    settings.QUOTA_CLIENT_SECRET = app["client_secret"]
    person = sandbox.person()
    answer = come_back(person, person.at_quota(person.start()))
    assert (answer.status_code, answer["Location"]) == (302, "/shop/")
    return person


def come_back(person: Person, url: str) -> Any:
    return person.come_back(url.replace("/shop/", "/", 1))


def test_after_signing_out(person: Person) -> None:
    url = person.client.post("/auth/quota/logout", headers=PAGE)["Location"]
    assert query_of(url)["post_logout_redirect_uri"] == "http://localhost/shop/"
    assert person.at_quota(url) == "http://localhost/shop/"


def test_after_signing_out_of_this_site_only(client: Client) -> None:
    client.force_login(get_user_model().objects.create_user("member"), BACKEND)
    assert client.post("/auth/quota/logout", headers=PAGE)["Location"] == "/shop/"


@pytest.mark.parametrize(
    ("setting", "where"),
    [("/shop/bye", "/shop/bye"), ("home", "/shop/"), ("/", "/shop/"), (None, "/shop/")],
)
def test_logout_redirect_url_is_the_way_back(
    client: Client, person: Person, settings: Settings, setting: str | None, where: str
) -> None:
    settings.LOGOUT_REDIRECT_URL = setting
    url = person.client.post("/auth/quota/logout", headers=PAGE)["Location"]
    assert query_of(url)["post_logout_redirect_uri"] == f"http://localhost{where}"
    client.force_login(get_user_model().objects.create_user("member"), BACKEND)
    assert client.post("/auth/quota/logout", headers=PAGE)["Location"] == where


def test_after_disconnecting(person: Person) -> None:
    assert person.client.post("/auth/quota/disconnect", headers=PAGE)["Location"] == "/shop/"


def test_after_buying(person: Person, sandbox: Sandbox) -> None:
    assert person.client.get("/auth/quota/checkout")["Location"] == "/shop/"


def test_where_a_signed_in_person_goes_on(person: Person, settings: Settings) -> None:
    settings.LOGIN_REDIRECT_URL = "/shop/desk"
    assert person.client.get("/auth/quota/checkout")["Location"] == "/shop/desk"
    assert person.client.post("/auth/quota/disconnect", headers=PAGE)["Location"] == "/shop/desk"


@pytest.mark.parametrize(
    "path", ["error?quota_error=access_denied", "packages", "connect", "error?quota_retry=page"]
)
def test_home_on_our_own_pages(person: Person, path: str) -> None:
    answer = person.client.get(f"/auth/quota/{path}", headers=PAGE)
    assert answer.status_code == 200
    links = [link["href"] for link in BeautifulSoup(answer.content, "html.parser").find_all("a")]
    assert "/shop/" in links
    assert "/" not in links


def test_a_failure_that_is_shown_at_home(client: Client, settings: Settings) -> None:
    settings.QUOTA_ERROR_URL = "/"
    answer = client.get("/auth/quota/callback?state=x")
    assert wanted_at(answer)[0] == "/shop/"
