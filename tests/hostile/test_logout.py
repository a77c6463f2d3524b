"""Signing out: only by the person's own will, always here, and at the provider where it can be;
the way back is this site's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.contrib.auth import SESSION_KEY, get_user_model
from django.test import Client
from pytest_django.fixtures import Settings

from django_quota.models import ProviderAccount, QuotaToken
from django_quota.oidc import discovery, id_token
from tests import signing
from tests.helpers.browser import Browser
from tests.hostile.provider import END_SESSION, REMOVED, HostileProvider
from tests.sandbox_client import query_of

pytestmark = pytest.mark.django_db

LOGOUT = "/auth/quota/logout"
PAGE = {"accept": "text/html"}
#: OpenID Connect RP-Initiated Logout 1.0
RP_LOGOUT = "OIDC RP-Initiated Logout 1.0"


@pytest.fixture
def signed_in(browser: Browser) -> Browser:
    browser.sign_in()
    return browser


def is_signed_in(browser: Browser) -> bool:
    return SESSION_KEY in browser.client.session


def signs_out(browser: Browser, **options: Any) -> str:
    """Press the button; where the browser is sent."""
    answer = browser.client.post(LOGOUT, headers=PAGE, **options)
    assert answer.status_code == 302
    assert not is_signed_in(browser)
    assert answer["Cache-Control"] == "no-store, private"
    return str(answer["Location"])


# --- only by the person's own will ---


@pytest.mark.source("RFC 9110 section 9.2.1: GET is safe")
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
def test_another_method_signs_nobody_out(method: str, signed_in: Browser) -> None:
    answer = signed_in.client.generic(method, LOGOUT)
    assert (answer.status_code, answer["Allow"]) == (405, "POST")
    assert is_signed_in(signed_in)


@pytest.mark.source("Django: CsrfViewMiddleware")
def test_a_foreign_form_signs_nobody_out(signed_in: Browser) -> None:
    strict = Client(SERVER_NAME="localhost", enforce_csrf_checks=True)
    strict.cookies["sessionid"] = signed_in.client.cookies["sessionid"].value
    assert strict.post(LOGOUT).status_code == 403
    assert is_signed_in(signed_in)


@pytest.mark.source(f"{RP_LOGOUT} section 2")
@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_a_visitor_signs_nobody_out(
    accept: str, provider: HostileProvider, browser: Browser
) -> None:
    answer = browser.client.post(LOGOUT, headers={"accept": accept})
    assert (
        answer["Location"] == "/" if accept == "text/html" else answer.json()["logout_url"] == "/"
    )
    assert provider.asked() == []


# --- always here ---


@pytest.mark.source(f"{RP_LOGOUT} section 2; oidcc-client-test-rp-init-logout")
def test_signs_out_here_and_at_the_provider(provider: HostileProvider, signed_in: Browser) -> None:
    """Without this, all of the others could be green for the wrong reason."""
    where = signs_out(signed_in)
    assert where.startswith(f"{provider.origin}{END_SESSION}?")
    sent = query_of(where)
    assert sent["post_logout_redirect_uri"] == "http://localhost/"
    assert sent["id_token_hint"] == QuotaToken.objects.get().id_token.reveal()


@pytest.mark.source("OWASP ASVS 5.0 section 7.4.1: the session ends")
def test_nothing_of_the_session_is_left(signed_in: Browser) -> None:
    session = signed_in.client.session
    session["cart"] = "theirs"
    session.save()
    before = str(session.session_key)
    signs_out(signed_in)
    assert "cart" not in signed_in.client.session
    thief = Client()
    thief.cookies["sessionid"] = before
    assert not thief.session.keys()


def no_answer(provider: HostileProvider, settings: Settings) -> None:
    settings.QUOTA_BASE_URL = "http://127.0.0.1:9"  # the discard port: nobody listens


def discovery_without_endpoint(provider: HostileProvider) -> None:
    provider.discovery["end_session_endpoint"] = REMOVED
    discovery.forget()


def no_endpoint(provider: HostileProvider, settings: Settings) -> None:
    provider.discovery["end_session_endpoint"] = REMOVED


def a_foreign_endpoint(provider: HostileProvider, settings: Settings) -> None:
    provider.discovery["end_session_endpoint"] = "https://evil.example/logout"


def another_issuer(provider: HostileProvider, settings: Settings) -> None:
    provider.discovery["issuer"] = "https://evil.example"


def a_setting_that_is_wrong(provider: HostileProvider, settings: Settings) -> None:
    settings.QUOTA_POST_LOGOUT_REDIRECT_URI = "javascript:alert(1)"


def a_key_that_is_lost(provider: HostileProvider, settings: Settings) -> None:
    settings.FIELD_ENCRYPTION_KEY = "Zm9yIGEgdGVzdCBvbmx5LCBhbmQgMzIgYnl0ZXMhISE="


def no_key_at_all(provider: HostileProvider, settings: Settings) -> None:
    settings.FIELD_ENCRYPTION_KEY = None


def no_row(provider: HostileProvider, settings: Settings) -> None:
    QuotaToken.objects.all().delete()


def no_account(provider: HostileProvider, settings: Settings) -> None:
    ProviderAccount.objects.all().delete()


def no_id_token(provider: HostileProvider, settings: Settings) -> None:
    QuotaToken.objects.update(id_token="")


#: Who has signed in with the provider signs out there, too: it is told which client asks.
WITHOUT_HINT = (a_key_that_is_lost, no_row, no_account, no_id_token)


def in_the_way(name: str, source: str, trouble: Any, log: str) -> Any:
    return pytest.param(trouble, log, id=name, marks=pytest.mark.source(source))


@pytest.mark.parametrize(
    ("trouble", "log"),
    [
        in_the_way("down", "design section 6", no_answer, "Quota cannot be reached"),
        in_the_way("no endpoint", f"{RP_LOGOUT} section 2.1", no_endpoint, ""),
        in_the_way(
            "endpoint of others",
            f"{RP_LOGOUT} section 6",
            a_foreign_endpoint,
            "end_session_endpoint",
        ),
        in_the_way("other issuer", "OIDC Discovery 4.3", another_issuer, "names an issuer other"),
        in_the_way(
            "setting", "design section 3", a_setting_that_is_wrong, "QUOTA_POST_LOGOUT_REDIRECT_URI"
        ),
        in_the_way("lost key", "design section 7", a_key_that_is_lost, "the id_token of user"),
        in_the_way("no key", "design section 7", no_key_at_all, "FIELD_ENCRYPTION_KEY is missing"),
        in_the_way("row gone", "design section 5", no_row, ""),
        in_the_way("account gone", "design section 5", no_account, ""),
        in_the_way("no id_token", f"{RP_LOGOUT} section 2", no_id_token, ""),
    ],
)
def test_signs_out_of_this_site_all_the_same(
    trouble: Callable[[HostileProvider, Settings], None],
    log: str,
    provider: HostileProvider,
    signed_in: Browser,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    trouble(provider, settings)
    discovery.forget()
    where = signs_out(signed_in)
    if trouble in WITHOUT_HINT:
        assert where.startswith(f"{provider.origin}{END_SESSION}?")
        assert sorted(query_of(where)) == ["client_id", "post_logout_redirect_uri"]
    else:
        assert where == "/"
    told = [r.getMessage() for r in caplog.records if r.name.startswith("django_quota")]
    assert len(told) == bool(log)
    assert log in "".join(told)


# --- whose id_token it is ---


@pytest.mark.source(f"{RP_LOGOUT} section 2: an expired one is a hint all the same")
def test_an_id_token_that_has_expired(provider: HostileProvider, signed_in: Browser) -> None:
    row = QuotaToken.objects.get()
    row.id_token = signing.forge({"alg": "RS256", "kid": "k1"}, {"exp": 1_000_000_000})
    row.expires_at = datetime.fromtimestamp(1_000_000_000, UTC)
    row.save()
    assert query_of(signs_out(signed_in))["id_token_hint"] == row.id_token.reveal()


@pytest.mark.source(f"{RP_LOGOUT} section 2")
def test_the_hint_names_who_signs_out(provider: HostileProvider, signed_in: Browser) -> None:
    """Not the newest, and not the first, of all that sign in with the provider."""
    ada = provider.person["sub"]
    hints = {}
    browsers = {ada: signed_in}
    for sub in ("earlier-letters-first", "zeno"):
        provider.person |= {"sub": sub, "email": f"{sub}@example.com"}
        browsers[sub] = Browser(Client(SERVER_NAME="localhost"))
        browsers[sub].sign_in()
    for sub, browser in browsers.items():
        hints[sub] = id_token.unverified_claims(query_of(signs_out(browser))["id_token_hint"])[
            "sub"
        ]
    assert hints == {sub: sub for sub in browsers}


@pytest.mark.source(f"{RP_LOGOUT} section 2")
def test_a_user_without_a_wallet_sends_nobodys(
    provider: HostileProvider, signed_in: Browser
) -> None:
    """Somebody else's tokens are in the database."""
    member = Browser(Client(SERVER_NAME="localhost"))
    member.client.force_login(
        get_user_model().objects.create_user("member"), "django.contrib.auth.backends.ModelBackend"
    )
    assert signs_out(member) == "/"
    assert is_signed_in(signed_in)


# --- the way back is this site's ---


@pytest.mark.source(f"{RP_LOGOUT} section 3; RFC 9700 section 4.11.1")
@pytest.mark.parametrize("name", ["post_logout_redirect_uri", "next", "redirect_uri", "logout_url"])
@pytest.mark.parametrize("place", ["query", "body"])
@pytest.mark.parametrize("known", [True, False], ids=["to the provider", "to this site"])
def test_no_parameter_leads_elsewhere(
    name: str, place: str, known: bool, provider: HostileProvider, signed_in: Browser
) -> None:
    if not known:
        discovery_without_endpoint(provider)
    evil = {name: "https://evil.example/"}
    options = {"query_params": evil} if place == "query" else {"data": evil}
    where = signs_out(signed_in, **options)
    assert "evil" not in where
    if known:
        assert query_of(where)["post_logout_redirect_uri"] == "http://localhost/"
    else:
        assert where == "/"


@pytest.mark.source(f"{RP_LOGOUT} section 3; RFC 9700 section 4.1")
@pytest.mark.parametrize("known", [True, False], ids=["to the provider", "to this site"])
def test_the_setting_is_the_way_back(
    known: bool, provider: HostileProvider, signed_in: Browser, settings: Settings
) -> None:
    settings.QUOTA_POST_LOGOUT_REDIRECT_URI = "https://app.example/bye"
    if not known:
        discovery_without_endpoint(provider)
    where = signs_out(signed_in)
    if known:
        where = query_of(where)["post_logout_redirect_uri"]
    assert where == "https://app.example/bye"


@pytest.mark.source("RFC 9700 section 4.1; Django: ALLOWED_HOSTS")
def test_another_host_header_is_refused(
    provider: HostileProvider, signed_in: Browser, settings: Settings
) -> None:
    """Also where no middleware has looked at it before."""
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if "Common" not in name]
    client = Client(SERVER_NAME="localhost")
    client.cookies["sessionid"] = signed_in.client.cookies["sessionid"].value
    asked = provider.asked()
    assert client.post(LOGOUT, headers=PAGE | {"host": "evil.example"}).status_code == 400
    assert provider.asked() == asked


@pytest.mark.source("RFC 9700 sections 4.1 and 4.13; Django: USE_X_FORWARDED_HOST")
def test_a_forwarded_host_is_ignored(signed_in: Browser) -> None:
    answer = signed_in.client.post(LOGOUT, headers=PAGE | {"x-forwarded-host": "evil.example"})
    assert query_of(answer["Location"])["post_logout_redirect_uri"] == "http://localhost/"


@pytest.mark.source("OIDC Discovery 3: an endpoint may have a query component")
def test_an_endpoint_with_a_query_of_its_own(provider: HostileProvider, signed_in: Browser) -> None:
    provider.discovery["end_session_endpoint"] = f"{provider.origin}{END_SESSION}?tenant=1"
    discovery.forget()
    where = signs_out(signed_in)
    assert urlsplit(where).path == END_SESSION
    assert sorted(query_of(where)) == [
        "client_id",
        "id_token_hint",
        "post_logout_redirect_uri",
        "tenant",
    ]
