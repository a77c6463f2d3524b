"""The token endpoint: replies that no honest provider gives, and how much of them is let in.

Unless a case says otherwise, what is sent are sound tokens for this very sign-in: whatever refuses
them is what the case is about. A code is sent once, and never again.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pytest_django.fixtures import Settings

from django_quota.models import QuotaToken
from django_quota.oidc.transport import MAX_REPLY_BYTES
from django_quota.web.signed_scopes import sign_scope
from tests.helpers.browser import Browser
from tests.hostile.conftest import Refused
from tests.hostile.provider import REMOVED, TOKEN, HostileProvider
from tests.sandbox_client import query_of, wanted_at
from tests.tiny_server import HANG_UP, Answer, TinyServer, answer, json_answer

pytestmark = pytest.mark.django_db

ASKED = "openid profile email credits.read credits.spend"
NO_TOKENS = "The token endpoint gave no usable tokens (HTTP 200)"
UNREACHED = "Quota cannot be reached"

#: What goes over the wire, made of the body that an honest provider would send.
Wire = Callable[[bytes], Answer]


def case(name: str, source: str, *values: Any) -> Any:
    return pytest.param(*values, id=name, marks=pytest.mark.source(source))


def posted(provider: HostileProvider) -> int:
    return provider.asked().count(f"POST {TOKEN}")


def arrive(provider: HostileProvider, browser: Browser, wire: Wire) -> str:
    """The callback of a person who is just back from a provider that answers like this."""
    url = browser.start()
    (nonce,) = parse_qs(urlsplit(url).query)["nonce"]
    callback = browser.at_provider(url)
    provider.server.on(TOKEN, wire(json.dumps(provider.token_reply(nonce)).encode()))
    return callback


def error(status: int, document: Any) -> Wire:
    return lambda body: json_answer(document, status=status, Retry_After="0")


def instead(document: bytes) -> Wire:
    return lambda body: answer(document)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def head(body: bytes, more: int = 0) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body) + more}\r\n".encode()


# --- Errors ---

ERRORS = [
    case(
        "as in RFC 6749",
        "RFC 6749 section 5.2",
        error(400, {"error": "invalid_grant", "error_description": "hush"}),
        "HTTP 400 invalid_grant",
    ),
    case(
        "in Quota's shape",
        "quota-protocol section 9",
        error(400, {"error": {"code": "invalid_grant", "message": "hush"}}),
        "HTTP 400 invalid_grant",
    ),
    case(
        "200 and an error",
        "RFC 6749 section 5.2",
        error(200, {"error": "invalid_grant"}),
        "HTTP 200 invalid_grant",
    ),
    case("code in HTML", "CWE-79", error(400, {"error": "<b>hush"}), "no usable tokens (HTTP 400)"),
    case(
        "code of two lines",
        "CWE-117",
        error(400, {"error": {"code": "bad\nhush"}}),
        "no usable tokens (HTTP 400)",
    ),
    case(
        "code without end",
        "CWE-117",
        error(400, {"error": "hush" * 125}),
        "no usable tokens (HTTP 400)",
    ),
    case("code a list", "RFC 6749 section 5.2", error(400, {"error": ["hush"]}), "(HTTP 400)"),
    case(
        "wrong secret",
        "RFC 6749 section 5.2",
        error(401, {"error": "invalid_client"}),
        "check QUOTA_CLIENT_ID and QUOTA_CLIENT_SECRET",
    ),
    case(
        "too often",
        "RFC 6585 section 4",
        error(429, {"error": {"code": "rate_limited"}}),
        "HTTP 429 rate_limited",
    ),
    case(
        "503 with tokens",
        "RFC 9110 section 15.6.4",
        lambda body: answer(body, status=503, Retry_After="0"),
        "no usable tokens (HTTP 503)",
    ),
    case("HTML", "RFC 6749 section 5.1", instead(b"<html>hush"), NO_TOKENS),
    case("empty", "RFC 6749 section 5.1", instead(b""), NO_TOKENS),
    case("null", "RFC 6749 section 5.1", instead(b"null"), NO_TOKENS),
    case("array", "RFC 6749 section 5.1", lambda body: answer(b"[" + body + b"]"), NO_TOKENS),
    case(
        "headers that break off",  # to Python's http.client they are complete
        "RFC 9112 section 8",
        lambda body: Answer(head=b"HTTP/1.1 200 OK\r\nContent-Ty", keep=False),
        NO_TOKENS,
    ),
    case("two documents", "RFC 8259 section 2", lambda body: answer(body + body), NO_TOKENS),
]


@pytest.mark.parametrize(("wire", "reason"), ERRORS)
def test_an_error_is_told_without_its_words(
    wire: Wire, reason: str, provider: HostileProvider, browser: Browser, refused: Refused
) -> None:
    callback = arrive(provider, browser, wire)
    refused(browser.come_back(callback), "token_exchange_failed", reason)
    assert posted(provider) == 1


@pytest.mark.parametrize(
    "status",
    [
        case("302", "RFC 9110 section 15.4.3", 302),
        case("307", "RFC 9110 section 15.4.8", 307),
        case("308", "RFC 9110 section 15.4.9", 308),
    ],
)
def test_a_redirect_does_not_take_the_secret_along(
    status: int, provider: HostileProvider, browser: Browser, refused: Refused
) -> None:
    with TinyServer() as thief:

        def wire(body: bytes) -> Answer:
            thief.on("/token", answer(body))
            return answer(body, status=status, Location=f"{thief.origin}/token")

        callback = arrive(provider, browser, wire)
        reason = f"no usable tokens (HTTP {status})"
        refused(browser.come_back(callback), "token_exchange_failed", reason)
        assert thief.requests == []
    assert posted(provider) == 1


# --- Replies without an end, or without a beginning ---

ENDLESS = 20 * MAX_REPLY_BYTES
BROKEN = [
    case("hung up", "RFC 9112 section 8", lambda body: HANG_UP, f"{UNREACHED} (ConnectionError)"),
    case(
        "not HTTP",
        "RFC 9112 section 4",
        lambda body: Answer(head=b"hush " + head(body) + b"\r\n" + body, keep=False),
        f"{UNREACHED} (ConnectionError)",
    ),
    case(
        "cut short",
        "RFC 9112 section 8",
        lambda body: Answer(head=head(body, more=1) + b"\r\n" + body, keep=False),
        f"{UNREACHED} (ChunkedEncodingError)",
    ),
    case(
        "cut short in a chunk",
        "RFC 9112 section 8",
        lambda body: Answer(
            head=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            + f"{len(body):x}\r\n".encode()
            + body,
            keep=False,
        ),
        f"{UNREACHED} (ChunkedEncodingError)",
    ),
    case(
        "only said to be gzip",
        "RFC 9110 section 8.4.1.3",
        lambda body: answer(body, Content_Encoding="gzip"),
        f"{UNREACHED} (ContentDecodingError)",
    ),
    case(
        "10 MB",
        "CWE-400",
        lambda body: answer(body.ljust(10 * MAX_REPLY_BYTES)),
        "answer is too large",
    ),
    case(
        "gzip bomb",
        "CWE-409",
        lambda body: answer(
            gzip.compress(body.ljust(50 * MAX_REPLY_BYTES)), Content_Encoding="gzip"
        ),
        "answer is too large",
    ),
    case(
        "headers without end",
        "CWE-400",
        lambda body: Answer(head=head(body), rest=b"X: 1\r\n" * (ENDLESS // 6)),
        f"{UNREACHED} (ConnectionError)",
    ),
    case(
        "a header without end",
        "CWE-400",
        lambda body: Answer(head=head(body) + b"X: ", rest=b"1" * ENDLESS),
        f"{UNREACHED} (ConnectionError)",
    ),
    case(
        "a chunk of the size -1",
        "RFC 9112 section 7.1; CWE-400",
        lambda body: Answer(head=CHUNKED + b"-1\r\n", rest=b" " * ENDLESS),
        "answer is too large",
    ),
    case(
        "trailers without end",
        "RFC 9112 section 7.1.2; CWE-400",
        lambda body: Answer(
            head=CHUNKED + b"%x\r\n%s\r\n0\r\n" % (len(body), body),
            rest=b"X: 1\r\n" * (ENDLESS // 6),
        ),
        "answer is too large",
    ),
    case(
        "a body without end",
        "CWE-400",
        lambda body: Answer(head=b"HTTP/1.1 200 OK\r\n\r\n" + body, rest=b" " * ENDLESS),
        "answer is too large",
    ),
]


@pytest.mark.parametrize(("wire", "reason"), BROKEN)
def test_a_broken_reply_is_not_read_to_its_end(
    wire: Wire, reason: str, provider: HostileProvider, browser: Browser, refused: Refused
) -> None:
    callback = arrive(provider, browser, wire)
    refused(browser.come_back(callback), "provider_unavailable", reason)
    assert posted(provider) == 1
    assert provider.server.bytes_sent < ENDLESS * 0.75


def dripping(headers: bytes, rest: bytes) -> Answer:
    """Each byte comes well within the read time-out; the whole takes four seconds."""
    return Answer(head=headers, rest=rest, pause=4 / len(rest))


@pytest.mark.slow
@pytest.mark.parametrize(
    "wire",
    [
        case("status line", "CWE-400", lambda body: dripping(b"", head(body) + b"\r\n" + body)),
        case("headers", "CWE-400", lambda body: dripping(head(body), b"X-Drip: 1\r\n\r\n" + body)),
        case("body", "CWE-400", lambda body: dripping(head(body) + b"\r\n", body)),
    ],
)
def test_a_dripping_reply_ends_at_the_deadline(
    wire: Wire,
    provider: HostileProvider,
    browser: Browser,
    refused: Refused,
    settings: Settings,
) -> None:
    callback = arrive(provider, browser, wire)
    settings.QUOTA_DEADLINE = 1.5
    refused(browser.come_back(callback), "provider_unavailable", UNREACHED)
    assert posted(provider) == 1


@pytest.mark.source("RFC 9110 section 9.2.2")
def test_a_provider_that_went_away_is_sent_nothing(
    provider: HostileProvider, browser: Browser, refused: Refused
) -> None:
    callback = browser.at_provider(browser.start())
    provider.server.__exit__()
    refused(
        browser.come_back(callback), "provider_unavailable", f"{UNREACHED} (connection refused)"
    )
    assert posted(provider) == 0


# --- Tokens that are none ---

UNUSABLE = [
    case("access_token missing", "RFC 6749 section 5.1", {"access_token": REMOVED}),
    case("access_token a number", "RFC 6749 appendix A.12", {"access_token": 7}),
    case("access_token empty", "RFC 6749 appendix A.12", {"access_token": ""}),
    case("access_token with a line", "RFC 6750 section 2.1", {"access_token": "a\r\nX-Injected:b"}),
    case("access_token with a space", "RFC 6750 section 2.1", {"access_token": "a b"}),
    case("access_token not ASCII", "RFC 6749 appendix A.12", {"access_token": "tökén"}),
    case("access_token of 900 kB", "CWE-400", {"access_token": "a" * 900_000}),
    case("token_type of another kind", "RFC 6749 section 7.1", {"token_type": "DPoP"}),
    case("token_type null", "RFC 6749 section 7.1", {"token_type": None}),
    case("token_type a list", "RFC 6749 section 7.1", {"token_type": ["Bearer"]}),
]


@pytest.mark.parametrize("changes", UNUSABLE)
def test_a_token_that_cannot_be_used_is_none(
    changes: dict[str, Any], provider: HostileProvider, browser: Browser, refused: Refused
) -> None:
    provider.token.update(changes)
    refused(browser.sign_in(), "token_exchange_failed", NO_TOKENS)
    assert posted(provider) == 1


@pytest.mark.source("OIDC Core 3.1.3.3")
def test_without_an_id_token_nobody_is_signed_in(
    provider: HostileProvider, browser: Browser, refused: Refused
) -> None:
    provider.token["id_token"] = REMOVED
    refused(browser.sign_in(), "invalid_id_token", "the reply has no")
    assert posted(provider) == 1


# --- Oddities that cost nobody their sign-in ---


def chunked(body: bytes) -> Answer:
    """Each byte in a piece of its own."""
    pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return Answer(head=start + pieces + b"0\r\n\r\n")


def stored() -> QuotaToken:
    return QuotaToken.objects.get()


@pytest.mark.parametrize(
    "wire",
    [
        # The content type is the provider's duty. What counts here is that it is JSON.
        case(
            "wrong content type",
            "RFC 6749 section 5.1",
            lambda body: answer(body, Content_Type="text/html"),
        ),
        case(
            "gzip",
            "RFC 9110 section 8.4.1.3",
            lambda body: answer(gzip.compress(body), Content_Encoding="gzip"),
        ),
        case("chunked", "RFC 9112 section 7.1", chunked),
    ],
)
def test_how_tokens_are_wrapped_does_not_matter(
    wire: Wire, provider: HostileProvider, browser: Browser
) -> None:
    callback = arrive(provider, browser, wire)
    assert browser.come_back(callback)["Location"] == "/"


@pytest.mark.parametrize(
    "token_type",
    [
        case("missing", "the recipe, step 05", REMOVED),
        case("in lower case", "RFC 6749 section 5.1", "bearer"),
        case("in upper case", "RFC 6749 section 5.1", "BEARER"),
    ],
)
def test_token_type_may_be(token_type: Any, provider: HostileProvider, browser: Browser) -> None:
    provider.token["token_type"] = token_type
    assert browser.sign_in()["Location"] == "/"


@pytest.mark.parametrize(
    ("expires_in", "seconds"),
    [
        case("missing", "RFC 6749 section 5.1", REMOVED, 3600),
        case("null", "RFC 6749 appendix A.14", None, 3600),
        case("a string", "RFC 6749 appendix A.14", "7200", 7200),
        case("words", "RFC 6749 appendix A.14", "soon", 3600),
        case("digits of another script", "RFC 6749 appendix A.14", "\u0661\u0662", 3600),
        case("a fraction", "RFC 6749 appendix A.14", 7200.9, 7200),
        case("negative", "RFC 6749 appendix A.14", -7200, 3600),
        case("zero", "RFC 6749 appendix A.14", 0, 3600),
        case("beyond all calendars", "CWE-190", 10**18, 3600),
        case("a bool", "RFC 6749 appendix A.14", True, 3600),
        case("a list", "RFC 6749 appendix A.14", [7200], 3600),
        case("NaN", "RFC 8259 section 6", float("nan"), 3600),
        case("infinite", "RFC 8259 section 6", float("inf"), 3600),
    ],
)
def test_expires_in_costs_nobody_their_tokens(
    expires_in: Any, seconds: int, provider: HostileProvider, browser: Browser
) -> None:
    provider.token["expires_in"] = expires_in
    assert browser.sign_in()["Location"] == "/"
    row = stored()
    assert row.access_token.reveal().startswith("quota_token_")
    assert row.expires_at - row.updated_at == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("scope", "kept"),
    [
        case("narrower", "RFC 6749 section 3.3", "openid email", "openid email"),
        case("missing", "RFC 6749 section 5.1", REMOVED, ASKED),
        case("empty", "RFC 6749 appendix A.4", "", ASKED),
        case("of two lines", "RFC 6749 appendix A.4", "openid\nhush", ASKED),
        case("with a NUL", "CWE-158", "openid\0", ASKED),
        case("without end", "CWE-400", "a" * 5000, ASKED),
        case("a list", "RFC 6749 appendix A.4", ["openid"], ASKED),
    ],
)
def test_scope_is_kept_if_it_is_one(
    scope: Any, kept: str, provider: HostileProvider, browser: Browser
) -> None:
    provider.token["scope"] = scope
    assert browser.sign_in()["Location"] == "/"
    assert stored().scope == kept


@pytest.mark.parametrize(
    "refresh_token",
    [
        case("missing", "RFC 6749 section 5.1", REMOVED),
        case("null", "RFC 6749 appendix A.17", None),
        case("a number", "RFC 6749 appendix A.17", 7),
        case("of two lines", "RFC 6749 appendix A.17", "a\nb"),
        case("of 100 kB", "CWE-400", "a" * 100_000),
    ],
)
def test_without_a_refresh_token_the_sign_in_works(
    refresh_token: Any, provider: HostileProvider, browser: Browser
) -> None:
    provider.token["refresh_token"] = refresh_token
    assert browser.sign_in()["Location"] == "/"
    row = stored()
    assert row.access_token.reveal().startswith("quota_token_")
    assert row.refresh_token.reveal() == ""


@pytest.mark.source("RFC 6749 3.3: the scope issued may differ from the one requested")
def test_less_scope_than_a_view_needs_ends_on_the_error_page(
    provider: HostileProvider, browser: Browser, told: list[dict[str, Any]]
) -> None:
    """Else that view and the sign-in would send the person to each other for ever."""
    provider.token["scope"] = "openid credits.read"
    link = {"next": "/spends", "scope": sign_scope("credits.spend")}
    path, said = wanted_at(browser.sign_in(**link))
    assert (path, said["quota_error"], said["next"]) == (
        "/auth/quota/error",
        "insufficient_scope",
        "/spends",
    )
    assert [heard["code"] for heard in told] == ["insufficient_scope"]
    assert stored().scope == "openid credits.read"  # signed in all the same
    # Trying again asks for it again.
    again = {"next": "/spends", "scope": said["scope"]}
    assert "credits.spend" in query_of(browser.start(**again))["scope"].split()


@pytest.mark.source("RFC 6749 3.3: identical to the scope requested, the parameter is optional")
def test_a_scope_that_is_not_named_is_the_one_that_was_asked_for(
    provider: HostileProvider, browser: Browser
) -> None:
    provider.token["scope"] = REMOVED
    browser.sign_in(scope=sign_scope("account.read"))
    assert "account.read" in stored().scope.split()
