"""What stock mozilla-django-oidc does with the cases that can be asked of any client.

Not part of the suite: ``python -m pytest tests/hostile/stock.py --junitxml=...`` notes each outcome
for the table that ``python -m tests.hostile.evidence`` writes. Configured as its documentation says
for RS256, with PKCE on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import SESSION_KEY, get_user_model
from django.core.signals import got_request_exception
from django.test import Client
from pytest_django.fixtures import Settings

from tests.helpers.browser import Browser
from tests.hostile import (
    test_callback,
    test_id_token,
    test_keys,
    test_token_endpoint,
    test_userinfo,
)
from tests.hostile.provider import (
    AUTHORIZE,
    CLIENT_ID,
    CLIENT_SECRET,
    JWKS,
    REMOVED,
    TOKEN,
    USERINFO,
    HostileProvider,
)

pytestmark = pytest.mark.django_db

Scenario = Callable[[HostileProvider, Browser], Any]


def same(test: str, row: Any, scenario: Scenario) -> Any:
    """The same case as that row of the suite's `test`."""
    return pytest.param(scenario, id=f"{test}[{row.id}]", marks=row.marks)


def id_token(row: Any) -> Any:
    def scenario(provider: HostileProvider, browser: Browser) -> Any:
        row.values[0](provider)
        return browser.sign_in()

    return same("test_id_token: test_id_token", row, scenario)


def key(row: Any) -> Any:
    def scenario(provider: HostileProvider, browser: Browser) -> Any:
        provider.keys = row.values[0]
        provider.header["kid"] = REMOVED
        return browser.sign_in()

    return same("test_keys: test_a_key_that_may_not_sign_is_none", row, scenario)


def token_error(row: Any) -> Any:
    def scenario(provider: HostileProvider, browser: Browser) -> Any:
        return browser.come_back(test_token_endpoint.arrive(provider, browser, row.values[0]))

    name = "test_token_endpoint: test_an_error_is_told_without_its_words"
    return same(name, row, scenario)


def no_userinfo(row: Any) -> Any:
    def scenario(provider: HostileProvider, browser: Browser) -> Any:
        provider.server.on(USERINFO, row.values[0](provider.person))
        return browser.sign_in()

    return same("test_userinfo: test_without_claims_the_sign_in_works", row, scenario)


def callback(row: Any) -> Any:
    def scenario(provider: HostileProvider, browser: Browser) -> Any:
        url = row.values[0](browser.at_provider(browser.start()))
        return browser.come_back(url.replace("/auth/quota/callback", "/oidc/callback/"))

    return same("test_callback: test_never_exchanged", row, scenario)


def other_sub(provider: HostileProvider, browser: Browser) -> Any:
    provider.userinfo = {"sub": "somebody-else", "email": "victim@example.com"}
    return browser.sign_in()


def forged_error(provider: HostileProvider, browser: Browser) -> Any:
    browser.sign_in()
    return browser.client.get("/oidc/callback/?error=access_denied")


def other_iss(provider: HostileProvider, browser: Browser) -> Any:
    provider.callback["iss"] = "https://evil.example"
    return browser.sign_in()


CASES = [
    *map(id_token, test_id_token.CASES),
    *map(key, test_keys.UNUSABLE),
    *map(token_error, test_token_endpoint.ERRORS),
    *map(no_userinfo, test_userinfo.NO_CLAIMS),
    *map(callback, test_callback.NEVER_EXCHANGED),
    pytest.param(
        other_sub,
        id="test_userinfo: test_about_somebody_else_it_is_not_used[another]",
        marks=pytest.mark.source("OIDC Core 5.3.2"),
    ),
    pytest.param(
        forged_error,
        id="test_callback: test_who_is_signed_in_goes_on[a forged error]",
        marks=pytest.mark.source("RFC 6749 section 10.12"),
    ),
    pytest.param(
        other_iss,
        id="test_callback: test_a_wrong_iss[another]",
        marks=pytest.mark.source("RFC 9207 section 2.4"),
    ),
]


@pytest.fixture
def stock(provider: HostileProvider, settings: Settings) -> Browser:
    """A browser at a site that signs in with stock mozilla-django-oidc."""
    settings.ROOT_URLCONF = "tests.urls_with_stock"
    settings.AUTHENTICATION_BACKENDS = ["mozilla_django_oidc.auth.OIDCAuthenticationBackend"]
    settings.OIDC_RP_CLIENT_ID = CLIENT_ID
    settings.OIDC_RP_CLIENT_SECRET = CLIENT_SECRET
    settings.OIDC_RP_SIGN_ALGO = "RS256"
    settings.OIDC_USE_PKCE = True
    settings.OIDC_OP_AUTHORIZATION_ENDPOINT = provider.origin + AUTHORIZE
    settings.OIDC_OP_TOKEN_ENDPOINT = provider.origin + TOKEN
    settings.OIDC_OP_USER_ENDPOINT = provider.origin + USERINFO
    settings.OIDC_OP_JWKS_ENDPOINT = provider.origin + JWKS
    settings.OIDC_TIMEOUT = 2
    settings.LOGIN_REDIRECT_URL_FAILURE = "/?failed=1"
    client = Client(SERVER_NAME="localhost", raise_request_exception=False)
    return Browser(client, start_path="/oidc/authenticate/")


@pytest.fixture
def outcome(stock: Browser, request: pytest.FixtureRequest) -> Any:
    """Notes what an answer of the site means to the person."""
    raised: list[str] = []

    def receiver(**kwargs: Any) -> None:
        raised.append(type(sys.exc_info()[1]).__name__)

    def note(answer: Any) -> None:
        user = stock.client.session.get(SESSION_KEY)
        if answer.status_code >= 500:
            became = f"500 ({raised[-1]})"
        elif user is not None:
            became = f"signs in {get_user_model().objects.get(pk=user).email}"
        elif get_user_model().objects.exists():
            became = "signs out who was signed in"
        else:
            became = "refused"
        request.node.user_properties.append(("note", became))

    got_request_exception.connect(receiver)
    yield note
    got_request_exception.disconnect(receiver)


@pytest.mark.parametrize("scenario", CASES)
def test_stock(
    scenario: Scenario,
    provider: HostileProvider,
    stock: Browser,
    outcome: Callable[[Any], None],
) -> None:
    outcome(scenario(provider, stock))
