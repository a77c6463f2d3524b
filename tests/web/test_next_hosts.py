"""QUOTA_ALLOWED_NEXT_HOSTS: where `next` may lead, besides the host of the request."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
from django.contrib.auth import SESSION_KEY
from django.core.checks import WARNING
from django.http import HttpRequest
from django.test import RequestFactory
from pytest_django.fixtures import Settings

from django_quota.checks import check_installation
from django_quota.web.redirects import current_page, safe_next
from tests.sandbox_client import Person, Sandbox, wanted_at

CALLBACK = "https://www.app.example/auth/quota/callback"
WWW = {"host": "www.app.example"}
SHOP = {"host": "shop.app.example"}


@pytest.fixture(autouse=True)
def hosts(settings: Settings) -> None:
    settings.ALLOWED_HOSTS = [".app.example"]
    settings.QUOTA_ALLOWED_NEXT_HOSTS = [".app.example"]


@pytest.mark.django_db(transaction=True)
class TestOneCallbackForManyHosts:
    @pytest.fixture(autouse=True)
    def fixed(self, settings: Settings, sandbox: Sandbox) -> None:
        """One fixed callback, and a session cookie that all hosts share."""
        app = sandbox.register_app(redirect_uris=[CALLBACK])
        settings.QUOTA_CLIENT_ID = app["client_id"]
        settings.QUOTA_CLIENT_SECRET = app["client_secret"]
        settings.QUOTA_REDIRECT_URI = CALLBACK
        settings.SESSION_COOKIE_DOMAIN = ".app.example"

    def signs_in(self, person: Person, **query: str) -> str:
        """Where somebody goes on who clicks "sign in" at the shop."""
        url = person.client.get("/auth/quota/start", query, headers=SHOP, secure=True)["Location"]
        back = person.at_quota(url)
        assert back.startswith(CALLBACK)
        return str(person.come_back(back, headers=WWW, secure=True)["Location"])

    def test_people_go_on_where_they_were(self, person: Person) -> None:
        assert self.signs_in(person, next="/cart?a=b") == "https://shop.app.example/cart?a=b"
        assert SESSION_KEY in person.client.session

    def test_also_without_a_next(self, person: Person, settings: Settings) -> None:
        settings.LOGIN_REDIRECT_URL = "/desk"
        assert self.signs_in(person) == "https://shop.app.example/desk"

    def test_a_next_on_a_third_host(self, person: Person) -> None:
        where = "https://blog.app.example/post"
        assert self.signs_in(person, next=where) == where

    def test_without_the_setting_they_go_on_at_the_callback(
        self, person: Person, settings: Settings
    ) -> None:
        settings.QUOTA_ALLOWED_NEXT_HOSTS = []
        assert self.signs_in(person, next="/cart") == "/cart"

    @pytest.mark.parametrize(
        "url",
        [
            "https://evil.example/",
            "https://app.example.evil.example/",
            "https://evilapp.example/",
            "https://shop.app.example@evil.example/",
            "https://evil.example\\@shop.app.example/",
            "https://[shop.app.example/",
            "javascript://shop.app.example/%0aalert(1)",
            "//evil.example/",
        ],
    )
    def test_no_next_of_a_strangers(self, person: Person, url: str) -> None:
        assert self.signs_in(person, next=url) == "https://shop.app.example/"

    def test_a_failure_keeps_the_way(self, person: Person) -> None:
        url = person.client.get("/auth/quota/start", {"next": "/cart"}, headers=SHOP, secure=True)[
            "Location"
        ]
        back = person.at_quota(url, allow=False)
        answer = person.come_back(back, headers=WWW, secure=True)
        assert wanted_at(answer)[1]["next"] == "https://shop.app.example/cart"

    def test_a_circle_ends_on_each_host(self, person: Person) -> None:
        for headers, host in (SHOP, "shop"), (WWW, "www"):
            url = person.client.get(
                "/auth/quota/start", {"next": "/boss"}, headers=headers, secure=True
            )
            back = person.at_quota(url["Location"])
            there = person.come_back(back, headers=WWW, secure=True)["Location"]
            assert urlsplit(there).path == "/boss"
            again = person.client.get(
                "/auth/quota/start", {"next": "/boss"}, headers=headers, secure=True
            )
            assert wanted_at(again)[1]["quota_error"] == "not_permitted", host

    def test_connecting_a_wallet(self, person: Person, django_user_model: Any) -> None:
        user = django_user_model.objects.create_user("member")
        person.client.force_login(user, "django.contrib.auth.backends.ModelBackend")
        url = person.client.post(
            "/auth/quota/connect", {"next": "/cart"}, headers=SHOP, secure=True
        )["Location"]
        back = person.at_quota(url)
        answer = person.come_back(back, headers=WWW, secure=True)
        assert answer["Location"] == "https://shop.app.example/cart"


class TestSafeNext:
    def page(self, **options: Any) -> HttpRequest:
        return RequestFactory().get("/", headers={"host": "www.app.example"}, **options)

    def test_does_not_leave_tls(self) -> None:
        request = self.page(secure=True)
        assert safe_next(request, "http://shop.app.example/") == ""
        assert safe_next(request, "https://shop.app.example/") == "https://shop.app.example/"

    def test_any_port_of_an_allowed_host(self, settings: Settings) -> None:
        """A front end in development."""
        settings.QUOTA_ALLOWED_NEXT_HOSTS = ["localhost"]
        assert safe_next(self.page(), "http://localhost:3000/chat") == "http://localhost:3000/chat"
        assert safe_next(self.page(), "http://localhost:x/chat") == ""

    def test_a_setting_that_is_wrong_is_no_500(self, settings: Settings) -> None:
        settings.QUOTA_ALLOWED_NEXT_HOSTS = "*"
        assert safe_next(self.page(), "http://shop.app.example/") == ""
        assert safe_next(self.page(), "/a") == "/a"

    def test_a_script_on_another_host_comes_back_to_its_page(self) -> None:
        at = {"host": "www.app.example", "Referer": "http://shop.app.example/chat?a=b"}
        request = RequestFactory().post("/", headers=at)
        assert current_page(request) == "http://shop.app.example/chat?a=b"
        at["Referer"] = "http://www.app.example/chat?a=b"
        assert current_page(RequestFactory().post("/", headers=at)) == "/chat?a=b"


class TestCheck:
    @pytest.fixture(autouse=True)
    def sound(self, settings: Settings) -> None:
        settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django_quota.middleware.QuotaMiddleware"]
        settings.QUOTA_ALLOWED_NEXT_HOSTS = []
        settings.QUOTA_REDIRECT_URI = CALLBACK
        settings.SESSION_COOKIE_DOMAIN = ".app.example"

    def test_people_come_back_on_another_host(self) -> None:
        (message,) = check_installation()
        assert (message.id, message.level) == ("django_quota.W007", WARNING)
        assert "['.app.example']" in str(message.hint)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("QUOTA_ALLOWED_NEXT_HOSTS", [".app.example"]),
            ("QUOTA_REDIRECT_URI", None),
            ("SESSION_COOKIE_DOMAIN", None),
            ("ALLOWED_HOSTS", ["www.app.example", "localhost"]),
        ],
    )
    def test_nothing_to_say(self, name: str, value: Any, settings: Settings) -> None:
        setattr(settings, name, value)
        assert check_installation() == []
