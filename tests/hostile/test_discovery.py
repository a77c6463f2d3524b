"""Who is Quota, and where: a discovery document that lies, leads astray, or does not come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pytest_django.fixtures import Settings

from django_quota.exceptions import ProviderUnavailable
from django_quota.models import ProviderAccount
from django_quota.oidc import cached_document, discovery, transport
from django_quota.oidc.transport import MAX_REPLY_BYTES
from tests.helpers.browser import Browser
from tests.helpers.certificates import Certificate, certificate
from tests.hostile.conftest import Refused
from tests.hostile.provider import (
    AUTHORIZE,
    DISCOVERY,
    JWKS,
    REMOVED,
    TOKEN,
    USERINFO,
    HostileProvider,
)
from tests.tiny_server import HANG_UP, Answer, TinyServer, answer, json_answer

pytestmark = pytest.mark.django_db

ENDPOINTS = [
    "authorization_endpoint",
    "token_endpoint",
    "userinfo_endpoint",
    "jwks_uri",
    "revocation_endpoint",
    "end_session_endpoint",
]
PASTE = "add this line to your settings: "
NO_ISSUER = "names no usable issuer; check QUOTA_BASE_URL."


def case(name: str, source: str, *values: Any, marks: Any = ()) -> Any:
    return pytest.param(*values, id=name, marks=[pytest.mark.source(source), *marks])


def click(browser: Browser) -> Any:
    """The site's answer to "Sign in with Quota"; discovery is read for it."""
    return browser.client.get(browser.start_path)


# --- The issuer ---

UNUSABLE_ISSUERS = [
    case("null", "OIDC Discovery 3", None),
    case("a list", "OIDC Discovery 3", ["https://usequota.ai"]),
    case("no TLS", "OIDC Discovery 7.1", "http://usequota.ai"),
    case("javascript", "OIDC Discovery 3", "javascript:alert(1)"),
    case("with a user", "CWE-117", "https://hush@usequota.ai"),
    case("a quote", "CWE-94", 'https://usequota.ai/";import os;"'),
    case("a new line", "CWE-117", "https://usequota.ai\nERROR sign-in failed"),
    case("a page long", "CWE-117", "https://usequota.ai/" + "a" * 5000),
]


@pytest.mark.parametrize("issuer", UNUSABLE_ISSUERS)
def test_no_line_to_paste_comes_from_an_issuer_that_is_none(
    issuer: Any,
    provider: HostileProvider,
    browser: Browser,
    refused: Refused,
    caplog: pytest.LogCaptureFixture,
) -> None:
    provider.discovery["issuer"] = issuer
    refused(click(browser), "issuer_mismatch", NO_ISSUER)
    assert PASTE not in caplog.text
    assert "usequota.ai" not in caplog.text


OTHER_ISSUERS = [
    case(
        "elsewhere",
        "OIDC Discovery 4.3; oidcc-client-test-discovery-issuer-mismatch",
        "https://usequota.ai",
        None,
    ),
    case("a slash more", "OIDC Discovery 4.3", "https://usequota.ai/", "https://usequota.ai"),
    case("a slash less", "OIDC Discovery 4.3", "https://usequota.ai", "https://usequota.ai/"),
    case("in another case", "OIDC Discovery 4.3", "https://UseQuota.ai", "https://usequota.ai"),
]


@pytest.mark.parametrize(("issuer", "expected"), OTHER_ISSUERS)
def test_another_issuer_is_refused_until_its_line_is_pasted(
    issuer: str,
    expected: str | None,
    provider: HostileProvider,
    browser: Browser,
    refused: Refused,
    settings: Settings,
    told: list[dict[str, Any]],
) -> None:
    provider.discovery["issuer"] = issuer
    settings.QUOTA_ISSUER = expected
    refused(click(browser), "issuer_mismatch", f'QUOTA_ISSUER = "{issuer}"')
    pasted: dict[str, Any] = {}
    exec(told[0]["reason"].split(PASTE)[1], pasted)
    settings.QUOTA_ISSUER = pasted["QUOTA_ISSUER"]
    assert browser.sign_in()["Location"] == "/"
    assert ProviderAccount.objects.get().issuer == issuer


@pytest.mark.source("OIDC Core 5.7; the recipe, OIDC issuer in production")
def test_a_moved_issuer_keeps_its_users(
    provider: HostileProvider, browser: Browser, settings: Settings
) -> None:
    browser.sign_in()
    before = ProviderAccount.objects.get()
    settings.QUOTA_ISSUER = provider.discovery["issuer"] = "https://usequota.ai"
    assert browser.sign_in()["Location"] == "/"
    after = ProviderAccount.objects.get()
    assert (after.pk, after.user_id) == (before.pk, before.user_id)
    assert (before.issuer, after.issuer) == (provider.origin, "https://usequota.ai")


@pytest.mark.source("OIDC Discovery 4.3")
def test_an_issuer_that_changes_is_refused_for_everybody(
    provider: HostileProvider,
    browser: Browser,
    refused: Refused,
    told: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not for one person a cool-down, while the others are sent to Quota in vain."""
    monkeypatch.setattr(cached_document, "MAX_AGE", 0)
    click(browser)
    provider.discovery["issuer"] = "https://usequota.ai"
    refused(click(browser), "issuer_mismatch", 'QUOTA_ISSUER = "https://usequota.ai"')
    for _ in range(3):
        click(browser)
    assert [heard["code"] for heard in told] == ["issuer_mismatch"] * 4


@pytest.mark.source("OIDC Discovery 4.2; RFC 9111 section 4.2.4: what is stale may serve")
def test_what_is_no_discovery_document_ends_nothing(
    provider: HostileProvider, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of maintenance, as JSON and with a 200."""
    monkeypatch.setattr(cached_document, "MAX_AGE", 0)
    browser.sign_in()
    provider.server.on(DISCOVERY, json_answer({"status": "maintenance"}))
    assert browser.sign_in()["Location"] == "/"


@pytest.mark.source("OIDC Discovery 4.2")
def test_no_discovery_document_at_all(
    provider: HostileProvider, browser: Browser, refused: Refused
) -> None:
    provider.server.on(DISCOVERY, json_answer({"status": "maintenance"}))
    refused(click(browser), "provider_unavailable", "no discovery document")


@pytest.mark.slow
@pytest.mark.source("CWE-400; design section 5 rule 7: every wait is bounded")
def test_who_waits_for_it_waits_no_longer_than_the_deadline(
    provider: HostileProvider, settings: Settings
) -> None:
    settings.QUOTA_DEADLINE = 1
    with ThreadPoolExecutor(1) as pool, discovery._metadata._lock:  # somebody fetches, for ever
        error = pool.submit(discovery.metadata).exception(20)
    assert isinstance(error, ProviderUnavailable) and not error.request_sent


# --- Endpoints ---


@pytest.mark.source("the recipe, Endpoints")
@pytest.mark.parametrize("left_out", [REMOVED, None], ids=["missing", "null"])
def test_endpoints_that_are_left_out_are_the_recipes(
    left_out: Any, provider: HostileProvider, browser: Browser
) -> None:
    provider.discovery.update(dict.fromkeys(ENDPOINTS, left_out))
    provider.claims["email"] = REMOVED  # so that userinfo is asked too
    assert browser.sign_in()["Location"] == "/"
    assert provider.asked() == [
        f"GET {DISCOVERY}",
        f"GET {AUTHORIZE}",
        f"POST {TOKEN}",
        f"GET {JWKS}",
        f"GET {USERINFO}",
    ]


STRAY = [
    case("a number", "OIDC Discovery 3", lambda origin: 7),
    case("relative", "OIDC Discovery 3", lambda origin: "/oauth/token"),
    case("without a scheme", "OIDC Discovery 3", lambda origin: origin.removeprefix("http:")),
    case("javascript", "OIDC Discovery 3", lambda origin: f"javascript:alert('{origin}')"),
    case("with a user", "RFC 3986 section 7.6", lambda origin: origin.replace("//", "//hush@")),
    case("ours as a user", "RFC 3986 section 7.6", lambda origin: f"{origin}@evil.example/"),
    case("ours as a prefix", "RFC 6454 section 5", lambda origin: f"{origin}.evil.example/"),
    case("with a fragment", "RFC 6749 section 3.1", lambda origin: f"{origin}/oauth#hush"),
    case("no port", "RFC 6454 section 5", lambda origin: origin.rpartition(":")[0]),
]


@pytest.mark.parametrize("url", STRAY)
def test_an_endpoint_that_is_not_on_quotas_origin_is_not_used(
    url: Callable[[str], Any], provider: HostileProvider, browser: Browser, refused: Refused
) -> None:
    provider.discovery["authorization_endpoint"] = url(provider.origin)
    refused(click(browser), "not_configured", "Discovery puts authorization_endpoint on an origin")


@pytest.mark.source("OIDC Discovery 7.2")
@pytest.mark.parametrize("name", ENDPOINTS)
def test_an_endpoint_of_somebody_else_is_not_asked(
    name: str, provider: HostileProvider, browser: Browser, refused: Refused
) -> None:
    with TinyServer() as thief:
        provider.discovery[name] = HostileProvider(thief).document()[name]
        refused(click(browser), "not_configured", f"Discovery puts {name} on an origin")
        assert thief.requests == []
        assert provider.asked() == [f"GET {DISCOVERY}"]


@pytest.mark.source("RFC 9700 section 4.4; OIDC Discovery 7.2")
def test_a_token_endpoint_that_moves_while_somebody_signs_in_gets_no_secret(
    provider: HostileProvider, browser: Browser, refused: Refused
) -> None:
    callback = browser.at_provider(browser.start())
    with TinyServer() as thief:
        provider.discovery["token_endpoint"] = HostileProvider(thief).document()["token_endpoint"]
        discovery.forget()  # another worker process of the site answers the callback
        reason = "Discovery puts token_endpoint on an origin"
        refused(browser.come_back(callback), "not_configured", reason)
        assert thief.requests == []
        assert f"POST {TOKEN}" not in provider.asked()


@pytest.mark.source("the recipe, OIDC issuer in production; OIDC Discovery 3")
def test_endpoints_may_be_the_issuers(
    provider: HostileProvider, browser: Browser, settings: Settings
) -> None:
    with TinyServer() as server:
        issuer = HostileProvider(server)
        settings.QUOTA_ISSUER = issuer.origin
        provider.discovery.update(issuer.document())
        assert browser.sign_in()["Location"] == "/"
        assert issuer.asked() == [f"GET {AUTHORIZE}", f"POST {TOKEN}", f"GET {JWKS}"]
        assert provider.asked() == [f"GET {DISCOVERY}"]


# --- No document ---

HUGE_PADDING = {"padding": " " * 10 * MAX_REPLY_BYTES}


TROUBLE = [
    case(
        "hung up",
        "RFC 9112 section 8",
        lambda document: HANG_UP,
        "cannot be reached (ConnectionError)",
    ),
    case(
        "500 with the document",
        "OIDC Discovery 4.2",
        lambda document: json_answer(document, status=500),
        "(HTTP 500)",
    ),
    case(
        "404",
        "OIDC Discovery 4.2",
        lambda document: json_answer({}, status=404),
        "(HTTP 404)",
    ),
    case(
        "HTML",
        "OIDC Discovery 4.2",
        lambda document: answer(b"<html>hush"),
        "no usable answer (HTTP 200)",
    ),
    case(
        "an array",
        "OIDC Discovery 4.2",
        lambda document: json_answer([document]),
        "no usable answer (HTTP 200)",
    ),
    case("empty", "OIDC Discovery 4.2", lambda document: answer(), "no usable answer (HTTP 200)"),
    case(
        "10 MB",
        "CWE-400",
        lambda document: json_answer(document | HUGE_PADDING),
        "answer is too large",
    ),
    case(
        "slow",
        "CWE-400",
        lambda document: json_answer(document, delay=3),
        "cannot be reached (timed out)",
        marks=[pytest.mark.slow],
    ),
]


@pytest.mark.parametrize(("trouble", "reason"), TROUBLE)
def test_without_a_document_nobody_is_sent_anywhere(
    trouble: Callable[[Any], Answer],
    reason: str,
    provider: HostileProvider,
    browser: Browser,
    refused: Refused,
) -> None:
    honest = provider.document()
    provider.server.on(DISCOVERY, trouble(honest), json_answer(honest))
    refused(click(browser), "provider_unavailable", reason)
    assert len(provider.server.requests) == 1
    # The trouble itself is not kept: once it is over, the next person gets in.
    assert browser.sign_in()["Location"] == "/"


@pytest.mark.source("RFC 9110 section 15.4; CWE-918")
def test_a_redirect_to_another_document_is_not_followed(
    provider: HostileProvider, browser: Browser, refused: Refused
) -> None:
    with TinyServer() as elsewhere:
        elsewhere.on("/moved", json_answer(provider.document()))
        provider.server.on(DISCOVERY, answer(status=308, Location=f"{elsewhere.origin}/moved"))
        refused(click(browser), "provider_unavailable", "no usable answer (HTTP 308)")
        assert elsewhere.requests == []


# --- TLS ---


#: `over_tls(served, trusted)`
OverTLS = Callable[[Certificate, Certificate], HostileProvider]


@pytest.fixture
def over_tls(
    provider: HostileProvider,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: Settings,
) -> Iterator[OverTLS]:
    """A provider over TLS that has the one certificate, where this machine trusts the other."""
    with ExitStack() as servers:

        def serve(served: Certificate, trusted: Certificate) -> HostileProvider:
            ours = tmp_path / "ours.pem"
            ours.write_bytes(trusted.public)
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ours))
            context = served.server_context(tmp_path)
            server = servers.enter_context(TinyServer(tls=context))
            settings.QUOTA_BASE_URL = server.origin
            return HostileProvider(server)

        forget_connections()
        yield serve
        forget_connections()


def forget_connections() -> None:
    """As a new process would start: whom a kept connection trusts was decided before."""
    transport._session().close()
    transport._session.cache_clear()


MINE, ANOTHERS = certificate("127.0.0.1"), certificate("127.0.0.2")


@pytest.mark.source("OIDC Core 16.17")
def test_over_tls_an_honest_provider_is_believed(over_tls: OverTLS, browser: Browser) -> None:
    """Without this, the others could be green for the wrong reason."""
    over_tls(MINE, MINE)
    assert browser.sign_in()["Location"] == "/"


@pytest.mark.parametrize(
    ("served", "trusted"),
    [
        case("nobody vouches for it", "OIDC Core 16.17", certificate("127.0.0.1"), MINE),
        case("it is another host's", "RFC 9525 section 6", ANOTHERS, ANOTHERS),
    ],
)
def test_a_wrong_certificate_is_sent_nothing(
    served: Certificate,
    trusted: Certificate,
    over_tls: OverTLS,
    browser: Browser,
    refused: Refused,
) -> None:
    stranger = over_tls(served, trusted)
    refused(
        click(browser), "provider_unavailable", "cannot be reached (TLS: CERTIFICATE_VERIFY_FAILED)"
    )
    assert (stranger.server.connections, stranger.server.requests) == (1, [])


@pytest.mark.source("RFC 6749 section 3.2; OIDC Discovery 7.1")
@pytest.mark.parametrize("name", ["token_endpoint", "jwks_uri"])
def test_an_endpoint_without_tls_is_not_used_under_tls(
    name: str, over_tls: OverTLS, browser: Browser, refused: Refused
) -> None:
    """On the very host and port, so that the scheme alone makes the difference."""
    secure = over_tls(MINE, MINE)
    secure.discovery[name] = "http" + secure.document()[name].removeprefix("https")
    refused(click(browser), "not_configured", f"Discovery puts {name} on an origin")
    assert secure.asked() == [f"GET {DISCOVERY}"]
