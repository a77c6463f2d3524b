"""Where the browser is sent: on this site after a sign-in, back to this site from the provider,
and nowhere else, whatever an address, a form, a header or a session says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from bs4 import BeautifulSoup
from django.contrib.auth import SESSION_KEY, get_user_model
from django.test import Client
from pytest_django.fixtures import Settings

from django_quota.conf import get_settings
from django_quota.web import pending
from django_quota.web.signed_scopes import sign_scope
from tests.helpers.browser import Browser
from tests.hostile.provider import REMOVED, HostileProvider
from tests.sandbox_client import query_of, wanted_at
from tests.tiny_server import json_answer

pytestmark = pytest.mark.django_db

START = "/auth/quota/start"
CALLBACK = "http://localhost/auth/quota/callback"

EVIL = {
    "another host": "https://evil.example/",
    "no scheme": "//evil.example",
    "three slashes": "///evil.example",
    "four slashes": "////evil.example",
    "a scheme without slashes": "https:evil.example",
    "a scheme with three slashes": "http:///evil.example",
    "slash, backslash": "/\\evil.example",
    "backslash, slash": "\\/evil.example",
    "two backslashes": "\\\\evil.example",
    "a scheme with backslashes": "http:\\\\evil.example",
    "script": "javascript:alert(1)",
    "script in capitals": " JaVaScript:alert(1)",
    "data": "data:text/html,<script>alert(1)</script>",
    "another scheme of ours": "ftp://localhost/",
    "our host as a user": "https://localhost@evil.example/",
    "our host and port as a user": "http://localhost:80@evil.example/",
    "a user at our host": "http://evil.example@localhost/",
    "a backslash before our host": "http://evil.example\\@localhost/",
    "our host as a prefix": "http://localhost.evil.example/",
    "our host as a suffix": "http://evil-localhost/",
    "another port": "http://localhost:8443/",
    "a dot of IDNA": "http://localhost\u3002evil.example/",
    "a slash of full width in the host": "http://localhost\uff0fevil.example/",
    "a space before": " //evil.example",
    "a newline before": "\n//evil.example",
    "a tab before": "\t//evil.example",
    "a tab between the slashes": "/\t/evil.example",
    "a line break between the slashes": "/\r\n/evil.example",
    "a NUL before": "\x00//evil.example",
    "a control character before": "\x1f//evil.example",
    "an invisible space before": "\u200b//evil.example",
    "a wide space before": "\u3000//evil.example",
    "a broken host": "http://[localhost/",
    "longer than any address": "/" + "x" * 3000,
}


def told_to_start(browser: Browser, url: str) -> str:
    browser.start(next=url)
    return str(browser.client.session[pending.SESSION_KEY][0]["next"])


def told_to_connect(browser: Browser, url: str) -> str:
    member_at(browser)
    browser.client.post("/auth/quota/connect", {"next": url})
    return str(browser.client.session[pending.SESSION_KEY][0]["next"])


def shown_on_the_page_that_asks(browser: Browser, url: str) -> str:
    member_at(browser)
    page = browser.client.get("/auth/quota/connect", {"next": url}).content
    field = BeautifulSoup(page, "html.parser").select_one('input[name="next"]')
    return str(field["value"]) if field is not None else ""


def kept_in_the_session(browser: Browser, url: str) -> str:
    """By another version of this package, say, or under another host name of the site."""
    back = browser.at_provider(browser.start())
    rewrite_next(browser, url)
    where = str(browser.come_back(back)["Location"])
    return "" if where == "/" else where


def kept_through_a_failure(browser: Browser, url: str) -> str:
    back = browser.at_provider(browser.start())
    rewrite_next(browser, url)
    return wanted_at(browser.come_back(f"{back}&error=access_denied"))[1].get("next", "")


def offered_by_the_error_page(browser: Browser, url: str) -> str:
    query = {"quota_error": "access_denied", "next": url}
    page = BeautifulSoup(browser.client.get("/auth/quota/error", query).content, "html.parser")
    (retry,) = [a["href"] for a in page.select("a") if str(a["href"]).startswith(START)]
    return query_of(str(retry))["next"] if "?" in str(retry) else ""


def member_at(browser: Browser) -> None:
    user = get_user_model().objects.create_user("member")
    browser.client.force_login(user, "django.contrib.auth.backends.ModelBackend")


def rewrite_next(browser: Browser, url: str) -> None:
    session = browser.client.session
    (kept,) = session[pending.SESSION_KEY]
    session[pending.SESSION_KEY] = [kept | {"next": url}]
    session.save()


#: Each gives what is left of a `next` where it is taken in or used; "" if nothing.
PLACES = [
    told_to_start,
    told_to_connect,
    shown_on_the_page_that_asks,
    kept_in_the_session,
    kept_through_a_failure,
    offered_by_the_error_page,
]
each_place = pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
Place = Callable[[Browser, str], str]


@pytest.mark.source("RFC 9700 section 4.11.1; RFC 6749 section 10.15")
@each_place
@pytest.mark.parametrize("url", EVIL.values(), ids=EVIL)
def test_nowhere_else(place: Place, url: str, browser: Browser) -> None:
    assert place(browser, url) == ""


@pytest.mark.source("RFC 9700 section 4.11.1")
@each_place
@pytest.mark.parametrize(
    "url", ["/chat?a=b&c=%2F#top", "http://localhost/chat", "//localhost/chat"]
)
def test_within_the_site(place: Place, url: str, browser: Browser) -> None:
    """Without this, all of the others could be green because nothing is ever kept."""
    assert place(browser, url) == url


@pytest.mark.source("RFC 9700 section 4.11.1; UTS 46 section 4")
@pytest.mark.parametrize("url", ["\uff0f\uff0fevil.example", "/\u2028/evil.example"])
def test_what_only_looks_like_slashes_is_quoted(url: str, browser: Browser) -> None:
    """So that nothing that folds such characters can take it for a host."""
    where = browser.sign_in(next=url)["Location"]
    assert where.isascii()
    assert not where.startswith("//")
    assert urlsplit(where).netloc == ""


@pytest.mark.source("RFC 6749 section 10.14")
@pytest.mark.parametrize("url", ["/a\r\nSet-Cookie: sessionid=evil", "/a\nb", "/a\0b"])
def test_a_line_break_does_not_split_the_answer(url: str, browser: Browser) -> None:
    answer = browser.sign_in(next=url)
    assert answer.status_code == 302
    assert answer["Location"].isprintable()
    assert answer.cookies["sessionid"].value != "evil"


@pytest.mark.source("RFC 9700 section 4.11.1")
@pytest.mark.parametrize(
    ("url", "kept"),
    [("http://localhost/", ""), ("//localhost/", ""), ("https://localhost/", "https://localhost/")],
)
def test_does_not_leave_tls(url: str, kept: str, provider: HostileProvider) -> None:
    client = Client(SERVER_NAME="localhost")
    client.get(START, {"next": url}, secure=True)
    assert client.session[pending.SESSION_KEY][0]["next"] == kept


@pytest.mark.source("RFC 6749 section 3.1")
def test_next_twice_is_none(browser: Browser) -> None:
    browser.client.get(f"{START}?next=/one&next=/two")
    assert browser.client.session[pending.SESSION_KEY][0]["next"] == ""


@pytest.mark.source("WHATWG Encoding: a surrogate is no scalar value")
@pytest.mark.parametrize("path", ["start", "callback", "error", "connect"])
def test_what_is_no_text_at_all(path: str, browser: Browser) -> None:
    """Django decodes an address by the charset of the Content-Type, which is anybody's."""
    member_at(browser)
    browser.start()
    for name in ("next", "state", "quota_error"):
        answer = browser.client.generic(
            "GET",
            f"/auth/quota/{path}",
            QUERY_STRING=f"{name}=/%5cud800",
            CONTENT_TYPE="x; charset=unicode_escape",
        )
        assert answer.status_code in (200, 302)
        assert "next" not in answer.get("Location", "")
    for started in browser.client.session.get(pending.SESSION_KEY, []):
        assert started["next"] == ""


@pytest.mark.source("WHATWG Encoding: a surrogate is no scalar value")
@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        ("checkout", "package_id", "+2AA-"),
        ("checkout", "next", "/+2AA-"),
        ("connect", "scope", "+2AA-:x:y"),
    ],
)
def test_what_is_no_text_in_a_form(path: str, field: str, value: str, browser: Browser) -> None:
    """Its charset is anybody's, too."""
    member_at(browser)
    form = f'--X\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n--X--\r\n'
    answer = browser.client.generic(
        "POST", f"/auth/quota/{path}", form, "multipart/form-data; boundary=X; charset=utf-7"
    )
    assert answer.status_code < 500
    assert "next" not in answer.get("Location", "")


# --- redirect_uri ---


def sent_redirect_uri(browser: Browser, **options: Any) -> str:
    return query_of(browser.client.get(START, **options)["Location"])["redirect_uri"]


@pytest.mark.source("RFC 9700 section 4.1; Django: ALLOWED_HOSTS")
def test_another_host_header_is_refused(
    provider: HostileProvider, browser: Browser, settings: Settings
) -> None:
    """Also where no middleware has looked at it before."""
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if "Common" not in name]
    answer = browser.client.get(START, headers={"host": "evil.example"})
    assert answer.status_code == 400
    assert not browser.client.cookies
    assert provider.asked() == []


@pytest.mark.source("RFC 9700 sections 4.1 and 4.13; Django: USE_X_FORWARDED_HOST")
def test_a_forwarded_host_is_ignored(browser: Browser) -> None:
    headers = {"x-forwarded-host": "evil.example", "forwarded": "host=evil.example"}
    assert sent_redirect_uri(browser, headers=headers) == CALLBACK


@pytest.mark.source("RFC 9700 sections 4.1 and 4.13; Django: USE_X_FORWARDED_HOST")
def test_a_forwarded_host_that_the_site_asks_for(browser: Browser, settings: Settings) -> None:
    settings.USE_X_FORWARDED_HOST = True
    ours = {"x-forwarded-host": "app.example"}
    assert sent_redirect_uri(browser, headers=ours) == "http://app.example/auth/quota/callback"
    evil = {"x-forwarded-host": "evil.example"}
    assert browser.client.get(START, headers=evil).status_code == 400


@pytest.mark.source("RFC 9700 sections 4.1 and 4.13; Django: SECURE_PROXY_SSL_HEADER")
@pytest.mark.parametrize(("trusted", "scheme"), [(True, "https"), (False, "http")])
def test_behind_a_tls_proxy(
    trusted: bool, scheme: str, browser: Browser, settings: Settings
) -> None:
    if trusted:
        settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    headers = {"x-forwarded-proto": "https", "host": "app.example"}
    sent = sent_redirect_uri(browser, headers=headers)
    assert sent == f"{scheme}://app.example/auth/quota/callback"


@pytest.mark.source("RFC 9700 section 2.1; RFC 6749 section 3.1.2")
@pytest.mark.parametrize("options", [{}, {"headers": {"host": "app.example"}}, {"secure": True}])
def test_a_fixed_redirect_uri(
    options: dict[str, Any], browser: Browser, settings: Settings
) -> None:
    settings.QUOTA_REDIRECT_URI = "https://app.example/auth/quota/callback"
    assert sent_redirect_uri(browser, **options) == settings.QUOTA_REDIRECT_URI


def under_another_name(settings: Settings) -> dict[str, Any]:
    return {"headers": {"host": "app.example"}}


def over_tls(settings: Settings) -> dict[str, Any]:
    return {"secure": True}


def after_a_deployment(settings: Settings) -> dict[str, Any]:
    settings.QUOTA_REDIRECT_URI = "https://app.example/auth/quota/callback"
    return {}


@pytest.mark.source("RFC 6749 section 4.1.3; OIDC Core 3.1.3.2")
@pytest.mark.parametrize("come_back", [under_another_name, over_tls, after_a_deployment])
def test_the_exchange_repeats_the_redirect_uri_of_the_start(
    come_back: Callable[[Settings], dict[str, Any]],
    provider: HostileProvider,
    browser: Browser,
    settings: Settings,
) -> None:
    back = browser.at_provider(browser.start())
    assert browser.come_back(back, **come_back(settings))["Location"] == "/"
    (exchange,) = provider.server.seen("/oauth/token")
    assert exchange.form["redirect_uri"] == CALLBACK


# --- what the way on carries ---


def honest(provider: HostileProvider) -> None:
    pass


def no_id_token(provider: HostileProvider) -> None:
    provider.token["id_token"] = REMOVED


def refused_exchange(provider: HostileProvider) -> None:
    provider.server.on("/oauth/token", json_answer({"error": "invalid_grant"}, status=400))


@pytest.mark.source("RFC 9700 sections 4.2.4 and 4.3.1")
@pytest.mark.parametrize("behaviour", [honest, no_id_token, refused_exchange])
def test_no_code_and_no_state_goes_on(
    behaviour: Callable[[HostileProvider], None], provider: HostileProvider, browser: Browser
) -> None:
    """They would reach the next page's logs, its scripts and the Referer of its links."""
    behaviour(provider)
    back = browser.at_provider(browser.start(next="/?welcome=1"))
    answer = browser.come_back(back)
    for name in ("code", "state"):
        assert query_of(back)[name] not in answer["Location"]
        assert f"{name}=" not in answer["Location"].replace("quota_error=", "")


@pytest.mark.source("RFC 9700 section 4.2.4; RFC 6819 section 5.1.2: no-store")
def test_no_cache_and_no_other_site_learns_of_a_sign_in(
    browser: Browser, settings: Settings
) -> None:
    settings.SECURE_REFERRER_POLICY = None  # Django's own middleware would set it, too
    answers = [browser.client.get("/auth/quota/start")]
    answers += [browser.sign_in(), browser.client.get("/auth/quota/error?quota_error=x")]
    for answer in answers:
        assert answer["Cache-Control"] == "no-store, private"
        assert answer["Referrer-Policy"] == "same-origin"
        assert answer["X-Frame-Options"] == "DENY"


@pytest.mark.source("the recipe: a failed sign-in lands on /?quota_error=<code>")
@pytest.mark.parametrize(
    ("setting", "start"),
    [
        ("/", "/?quota_error=access_denied&quota_ref="),
        ("/login?from=quota", "/login?from=quota&quota_error=access_denied&quota_ref="),
        ("/#sign-in", "/?quota_error=access_denied&quota_ref="),
        ("https://app.example/failed", "https://app.example/failed?quota_error=access_denied&"),
        ("home", "/?quota_error=access_denied&quota_ref="),
        ("no_such_name", "/auth/quota/error?quota_error=access_denied&quota_ref="),
    ],
)
def test_the_error_url(setting: str, start: str, browser: Browser, settings: Settings) -> None:
    settings.QUOTA_ERROR_URL = setting
    back = browser.at_provider(browser.start(next="/?a=b&quota_error=forged"))
    where = browser.come_back(f"{back}&error=access_denied")["Location"]
    assert where.startswith(start)
    assert where.endswith("#sign-in") is ("#" in setting)
    assert wanted_at({"Location": where})[1]["next"] == "/?a=b&quota_error=forged"
    assert SESSION_KEY not in browser.client.session


@pytest.mark.source(
    "RFC 6749 3.3; RFC 9700 2.3: the privileges of a token are the minimum required"
)
@pytest.mark.parametrize("scope", ["account.write", "account.write:x:y", "a:b:c", "\x00", ":::"])
def test_a_link_of_somebody_elses_asks_for_no_more(
    scope: str, provider: HostileProvider, browser: Browser
) -> None:
    asked = query_of(browser.start(scope=scope))["scope"]
    assert asked.split() == list(get_settings().scopes)


@pytest.mark.source("RFC 9700 2.3")
def test_nor_does_an_old_link_of_ours(
    provider: HostileProvider, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = sign_scope("account.read")
    assert "account.read" in query_of(browser.start(scope=link))["scope"]
    monkeypatch.setattr("django_quota.web.signed_scopes.SCOPE_LIFETIME", -1)
    assert "account.read" not in query_of(browser.start(scope=link))["scope"]
