"""The userinfo endpoint: it may add to what the id_token says about a person, and no more.

It never decides who signs in, so nothing that it answers keeps anybody from signing in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from pytest_django.fixtures import Settings

from django_quota.models import ProviderAccount
from django_quota.oidc.transport import MAX_REPLY_BYTES
from tests import signing
from tests.helpers.browser import Browser
from tests.hostile.conftest import SECRET
from tests.hostile.provider import REMOVED, USERINFO, HostileProvider
from tests.tiny_server import HANG_UP, Answer, TinyServer, answer, json_answer

pytestmark = pytest.mark.django_db

EMAIL = "ada@example.com"
NOT_READ = "userinfo not read: "


def case(name: str, source: str, *values: Any, marks: Any = ()) -> Any:
    return pytest.param(*values, id=name, marks=[pytest.mark.source(source), *marks])


def asked(provider: HostileProvider) -> int:
    return provider.asked().count(f"GET {USERINFO}")


@pytest.fixture
def sparse(provider: HostileProvider) -> HostileProvider:
    """Its id_tokens say nothing but `sub`; an honest userinfo has the rest."""
    provider.claims.update(email=REMOVED, email_verified=REMOVED, name=REMOVED)
    return provider


#: `warned(reason)`
Warned = Callable[[str], None]


@pytest.fixture
def warned(sparse: HostileProvider, browser: Browser, caplog: pytest.LogCaptureFixture) -> Warned:
    """Checks that a sign-in works, and that the log says why nothing of userinfo was used."""

    def check(reason: str) -> None:
        assert browser.sign_in()["Location"] == "/"
        account = ProviderAccount.objects.get()
        assert account.external_id == sparse.person["sub"]
        assert (account.email, account.name, account.picture) == ("", "", "")
        assert get_user_model().objects.get().email == ""
        (line,) = [r for r in caplog.records if r.name == "django_quota.sign_in"]
        assert reason in line.getMessage()
        assert not SECRET.search(caplog.text)
        assert asked(sparse) == 1

    return check


# --- What it is for ---


@pytest.mark.source("OIDC Core 5.4; oidcc-client-test-scope-userinfo-claims")
def test_it_adds_what_the_id_token_leaves_out(sparse: HostileProvider, browser: Browser) -> None:
    sparse.userinfo["picture"] = "https://quota.example/ada.png"
    browser.sign_in()
    account = ProviderAccount.objects.get()
    assert (account.email, account.name) == (EMAIL, "Ada Lovelace")
    assert account.picture == "https://quota.example/ada.png"
    assert get_user_model().objects.get().email == EMAIL  # it is verified
    assert asked(sparse) == 1


@pytest.mark.source("OIDC Core 5.4")
def test_it_is_not_asked_when_nothing_is_missing(
    provider: HostileProvider, browser: Browser
) -> None:
    browser.sign_in()
    assert asked(provider) == 0


@pytest.mark.source("OIDC Core 5.4")
def test_it_is_not_asked_for_what_was_not_asked_for(
    sparse: HostileProvider, browser: Browser, settings: Settings
) -> None:
    settings.QUOTA_SCOPES = "openid credits.read"
    browser.sign_in()
    assert asked(sparse) == 0


@pytest.mark.source("OIDC Core 5.3.2; RFC 8725 section 2.1")
def test_it_never_overrides_the_id_token(provider: HostileProvider, browser: Browser) -> None:
    """What is signed wins over what is not."""
    provider.claims["name"] = REMOVED
    provider.userinfo.update(
        email="eve@example.com", iss="https://evil.example", name="Eve", nonce="evil"
    )
    browser.sign_in()
    account = ProviderAccount.objects.get()
    assert (account.email, account.name) == (EMAIL, "Eve")
    assert account.issuer == provider.origin


@pytest.mark.parametrize(
    ("claims", "userinfo", "email"),
    [
        case(
            "the id_token's e-mail by userinfo",
            "OIDC Core 5.1",
            {"email": "victim@example.com", "email_verified": REMOVED, "name": REMOVED},
            {},
            "victim@example.com",
        ),
        case(
            "userinfo's e-mail by the id_token",
            "OIDC Core 5.1",
            {"email": REMOVED},
            {"email": "victim@example.com", "email_verified": False},
            "victim@example.com",
        ),
    ],
)
def test_one_does_not_verify_the_others_email(
    claims: dict[str, Any],
    userinfo: dict[str, Any],
    email: str,
    provider: HostileProvider,
    browser: Browser,
) -> None:
    """`email_verified` is about the e-mail that stands beside it."""
    provider.claims.update(claims)
    provider.userinfo.update(userinfo)
    browser.sign_in()
    assert ProviderAccount.objects.get().email == email
    assert get_user_model().objects.get().email == ""


# --- About whom? ---


@pytest.mark.parametrize(
    "sub",
    [
        case("another", "OIDC Core 5.3.2; oidcc-client-test-userinfo-invalid-sub", "somebody-else"),
        case("missing", "OIDC Core 5.3.2", REMOVED),
        case("null", "OIDC Core 5.3.2", None),
        case("in upper case", "OIDC Core 5.3.2", "8C5F3F0E-7A4E-4B57-9C7E-0D6F0F5B1C11"),
        case("in a list", "OIDC Core 5.3.2", ["8c5f3f0e-7a4e-4b57-9c7e-0d6f0f5b1c11"]),
    ],
)
def test_about_somebody_else_it_is_not_used(
    sub: Any, sparse: HostileProvider, warned: Warned
) -> None:
    sparse.userinfo["sub"] = sub
    warned("userinfo is about another sub and was not used")


# --- No claims at all ---

HUGE = {"padding": " " * 10 * MAX_REPLY_BYTES}

#: What it answers instead, made of what an honest one would.
NO_CLAIMS = [
    case(
        "401",
        "OIDC Core 5.3.3",
        lambda claims: json_answer(claims | {"error": "invalid_token"}, status=401),
        NOT_READ + "Quota refused the request: HTTP 401 invalid_token.",
    ),
    case(
        "403 for a scope",
        "RFC 6750 section 3.1",
        lambda claims: json_answer({"error": "insufficient_scope"}, status=403),
        NOT_READ + "The user's token lacks a scope",
    ),
    case(
        "429",
        "RFC 6585 section 4",
        lambda claims: json_answer(claims, status=429),
        NOT_READ + "Quota is limiting our rate",
    ),
    case(
        "500",
        "RFC 9110 section 15.6.1",
        lambda claims: json_answer(claims, status=500),
        NOT_READ + "Quota gave no usable answer (HTTP 500)",
    ),
    case(
        "HTML",
        "OIDC Core 5.3.2",
        lambda claims: answer(b"<html>hush", Content_Type="text/html"),
        NOT_READ + "Quota gave no usable answer (HTTP 200)",
    ),
    case(
        "an array",
        "OIDC Core 5.3.2",
        lambda claims: json_answer([claims]),
        NOT_READ + "Quota gave no usable answer (HTTP 200)",
    ),
    case(
        "a signed JWT",
        "OIDC Core 5.3.2; oidcc-client-test-userinfo-signed",
        lambda claims: answer(signing.sign(claims).encode(), Content_Type="application/jwt"),
        NOT_READ + "Quota gave no usable answer (HTTP 200)",
    ),
    case(
        "an unsigned JWT",
        "RFC 8725 section 3.1",
        lambda claims: answer(
            signing.forge({"alg": "none"}, claims, b"").encode(), Content_Type="application/jwt"
        ),
        NOT_READ + "Quota gave no usable answer (HTTP 200)",
    ),
    case(
        "10 MB",
        "CWE-400",
        lambda claims: json_answer(claims | HUGE),
        NOT_READ + "Quota's answer is too large",
    ),
    case(
        "hung up",
        "RFC 9112 section 8",
        lambda claims: HANG_UP,
        NOT_READ + "Quota cannot be reached (ConnectionError)",
    ),
    case(
        "slow",
        "CWE-400",
        lambda claims: json_answer(claims, delay=3),
        NOT_READ + "Quota cannot be reached (timed out)",
        marks=[pytest.mark.slow],
    ),
]


@pytest.mark.parametrize(("reply", "reason"), NO_CLAIMS)
def test_without_claims_the_sign_in_works(
    reply: Callable[[dict[str, Any]], Answer],
    reason: str,
    sparse: HostileProvider,
    warned: Warned,
) -> None:
    sparse.server.on(USERINFO, reply(sparse.person))
    warned(reason)


@pytest.mark.source("RFC 9110 section 15.4; RFC 6750 section 5.2")
def test_a_redirect_does_not_take_the_token_along(sparse: HostileProvider, warned: Warned) -> None:
    with TinyServer() as thief:
        thief.on("/me", json_answer(sparse.person))
        sparse.server.on(USERINFO, answer(status=307, Location=f"{thief.origin}/me"))
        warned(NOT_READ + "Quota gave no usable answer (HTTP 307)")
        assert thief.requests == []


# --- Claims that are none ---

#: What it says instead, and what is kept: e-mail, name, picture.
ODD = [
    case("email an object", "OIDC Core 5.1", {"email": {"address": EMAIL}}, ("", "Ada", "")),
    case("email with a line's end", "CWE-93", {"email": f"{EMAIL}\r\n"}, ("", "Ada", "")),
    case(
        "email of two people",
        "OIDC Core 5.1",
        {"email": f"{EMAIL},eve@example.com"},
        ("", "Ada", ""),
    ),
    case("email without end", "CWE-400", {"email": "a" * 300 + "@example.com"}, ("", "Ada", "")),
    case("name a list", "OIDC Core 5.1", {"name": ["Ada"]}, (EMAIL, "", "")),
    case("name with a NUL", "CWE-158", {"name": "Ada\0"}, (EMAIL, "Ada", "")),
    case("name without end", "CWE-400", {"name": "a" * 5000}, (EMAIL, "a" * 255, "")),
    case("picture javascript", "CWE-79", {"picture": "javascript:alert(1)"}, (EMAIL, "Ada", "")),
    case("picture data", "CWE-79", {"picture": "data:text/html,hush"}, (EMAIL, "Ada", "")),
    case("picture a number", "OIDC Core 5.1", {"picture": 7}, (EMAIL, "Ada", "")),
]


@pytest.mark.parametrize(("claims", "kept"), ODD)
def test_an_odd_claim_is_left_out(
    claims: dict[str, Any],
    kept: tuple[str, str, str],
    sparse: HostileProvider,
    browser: Browser,
) -> None:
    sparse.userinfo.update({"name": "Ada"} | claims)
    assert browser.sign_in()["Location"] == "/"
    account = ProviderAccount.objects.get()
    assert (account.email, account.name, account.picture) == kept


@pytest.mark.parametrize(
    "verified",
    [
        case("false", "OIDC Core 5.1", False),
        case("missing", "OIDC Core 5.1", REMOVED),
        case("a string", "OIDC Core 5.1", "true"),
        case("a number", "OIDC Core 5.1", 1),
    ],
)
def test_only_true_is_verified(verified: Any, sparse: HostileProvider, browser: Browser) -> None:
    """An address that is not is shown as the provider's, and is not the user's."""
    sparse.userinfo["email_verified"] = verified
    browser.sign_in()
    assert ProviderAccount.objects.get().email == EMAIL
    assert get_user_model().objects.get().email == ""
