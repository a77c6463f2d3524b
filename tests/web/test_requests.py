"""django_quota.web: where a browser may be sent, and what kind of answer it wants."""

from __future__ import annotations

from typing import Any

import pytest
from django.http import HttpResponse
from django.test import RequestFactory
from django.urls import NoReverseMatch

from django_quota.web import redirects
from django_quota.web.redirects import current_page, safe_next, url_with
from django_quota.web.requests import query_value, wants_page
from django_quota.web.responses import add_private_headers

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


class TestSingle:
    @pytest.mark.parametrize(
        ("query", "value"),
        [
            ("state=a", "a"),
            ("state=", ""),
            ("state", ""),
            ("state=a&code=b", "a"),
            ("", None),
            ("code=b", None),
            ("state=a&state=a", None),
            ("state=a&state=b", None),
            ("state=&state=b", None),
        ],
    )
    def test_is_a_parameter_sent_exactly_once(
        self, query: str, value: str | None, rf: RequestFactory
    ) -> None:
        assert query_value(rf.get(f"/callback?{query}"), "state") == value

    def test_is_not_taken_from_a_form(self, rf: RequestFactory) -> None:
        assert query_value(rf.post("/callback", {"state": "a"}), "state") is None


class TestSafeNext:
    @pytest.mark.parametrize(
        "url", ["/", "/chat?a=b&c=%2F#top", "chat", "?page=2", "http://testserver/chat"]
    )
    def test_stays_on_this_site(self, url: str, rf: RequestFactory) -> None:
        assert safe_next(rf.get("/"), url) == url

    @pytest.mark.parametrize(
        "url",
        [
            None,
            "",
            " ",
            "https://evil.example/",
            "http://evil.example",
            "//evil.example",
            "///evil.example",
            "////evil.example",
            "\\\\evil.example",
            "/\\evil.example",
            "\\/evil.example",
            "http:///evil.example",
            "http:\\\\evil.example",
            "http://testserver@evil.example",
            "http://testserver.evil.example",
            "javascript:alert(1)",
            "JavaScript:alert(1)",
            "data:text/html,x",
            "\x08//evil.example",
            "\thttps://evil.example",
            "\n//evil.example",
            "ftp://testserver/",
            "http://[",
        ],
    )
    def test_leads_nowhere_else(self, url: str | None, rf: RequestFactory) -> None:
        assert safe_next(rf.get("/"), url) == ""

    def test_does_not_leave_tls(self, rf: RequestFactory) -> None:
        request = rf.get("/", secure=True)

        assert safe_next(request, "http://testserver/chat") == ""
        assert safe_next(request, "https://testserver/chat") == "https://testserver/chat"

    def test_knows_the_port(self, rf: RequestFactory) -> None:
        request = rf.get("/", headers={"host": "localhost:8000"})

        assert safe_next(request, "http://localhost:8000/chat") == "http://localhost:8000/chat"
        assert safe_next(request, "http://localhost:9000/chat") == ""


class TestURLWith:
    @pytest.mark.parametrize(
        ("to", "url"),
        [
            ("django_quota:error", "/auth/quota/error"),
            ("home", "/"),
            ("admin:index", "/admin/"),
            ("/", "/"),
            ("/login/", "/login/"),
            ("https://app.example/failed", "https://app.example/failed"),
        ],
    )
    def test_takes_a_view_name_or_a_path(self, to: str, url: str) -> None:
        assert url_with(to) == url
        assert url_with(to, quota_error="a") == f"{url}?quota_error=a"

    def test_of_a_view_that_is_not_there_is_an_error(self) -> None:
        with pytest.raises(NoReverseMatch):
            url_with("django_quota:nowhere")

    def test_leaves_empty_parameters_out(self) -> None:
        assert url_with("/", next="", quota_error="a") == "/?quota_error=a"
        assert url_with("/", next="") == "/"

    def test_quotes(self) -> None:
        assert url_with("/", next="/a?b=c&d=ü#e") == "/?next=%2Fa%3Fb%3Dc%26d%3D%C3%BC%23e"

    def test_keeps_a_query_that_is_there(self) -> None:
        assert url_with("/?a=b", quota_error="c") == "/?a=b&quota_error=c"

    def test_keeps_a_fragment_that_is_there(self) -> None:
        """QUOTA_ERROR_URL = "/#sign-in": a query behind the fragment would never arrive."""
        assert url_with("/#sign-in", quota_error="c") == "/?quota_error=c#sign-in"


class TestWantsPage:
    @pytest.mark.parametrize(
        ("accept", "page"),
        [
            (BROWSER, True),
            ("text/html", True),
            ("text/*", True),
            ("text/html, application/json;q=0.9", True),
            ("application/json;q=0.5, text/html", True),
            ("application/json", False),
            ("application/json, text/html;q=0.9", False),
            ("application/json, text/plain, */*", False),
            ("*/*", False),
            ("image/png", False),
            ("nonsense", False),
            ("", False),
        ],
    )
    def test_is_said_by_the_accept_header(
        self, accept: str, page: bool, rf: RequestFactory
    ) -> None:
        assert wants_page(rf.get("/", headers={"accept": accept})) is page

    def test_is_not_assumed_without_one(self, rf: RequestFactory) -> None:
        assert wants_page(rf.get("/")) is False


@pytest.mark.parametrize(
    ("referer", "page"),
    [
        ("http://testserver/chat?a=1#b", "/chat?a=1#b"),
        ("http://testserver//evil.example/", ""),
        ("http://evil.example/chat", ""),
        ("https://testserver.evil.example/", ""),
        ("javascript:alert(1)", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_a_form_is_answered_with_the_way_back_to_its_page(
    referer: str | None, page: str, rf: RequestFactory
) -> None:
    headers = {} if referer is None else {"Referer": referer}
    assert current_page(rf.post("/ask", headers=headers)) == page


def test_private_is_kept_by_no_cache() -> None:
    response = HttpResponse("mine", status=201)

    assert add_private_headers(response) is response
    assert set(response["Cache-Control"].split(", ")) == {"no-store", "private"}


def test_private_gives_no_address_to_other_sites() -> None:
    """The callback's address holds a code."""
    assert add_private_headers(HttpResponse())["Referrer-Policy"] in ("no-referrer", "same-origin")


@pytest.mark.parametrize(
    ("login_url", "found"),
    [
        ("django_quota:start", ""),
        ("/auth/quota/start", ""),
        ("/auth/quota/start?prompt=login", ""),
        ("http://testserver/auth/quota/start", ""),
        ("/login/", "/login/?next=%2Fa"),
        ("/login/?sso=1", "/login/?sso=1&next=%2Fa"),
        ("https://login.example/", "https://login.example/?next=http%3A%2F%2Ftestserver%2Fa"),
        ("no-such-name", ""),
        ("", ""),
        (None, ""),
        # Django's default: this project has no such page.
        ("/accounts/login/", ""),
    ],
)
def test_login_url_of_the_site_is_a_sign_in_page_of_its_own(
    settings: Any, login_url: str, found: str
) -> None:
    settings.LOGIN_URL = login_url

    assert redirects.site_login_url(RequestFactory().get("/b"), "/a") == found
