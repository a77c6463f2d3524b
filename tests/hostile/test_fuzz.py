"""Whatever arrives, from Quota or from a browser: never an exception that is not ours, never a 500.

Hypothesis makes the inputs, the same ones in each run. For a longer run with other ones:
`FUZZ_TIMES=100 pytest tests/hostile/test_fuzz.py`. tests/hostile/coverage_guided.py goes deeper.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from django.contrib.auth import SESSION_KEY, get_user_model
from django.core.cache import cache
from django.test import Client
from hypothesis import HealthCheck, assume, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir
from jwt.algorithms import RSAAlgorithm
from pytest_django.fixtures import Settings

from django_quota.exceptions import QuotaError, ReauthenticationRequired, SignInFailed
from django_quota.models import ProviderAccount, QuotaToken, WebhookEvent
from django_quota.oidc import developers, discovery, endpoints, id_token, transport, wallet_api
from django_quota.web import pending
from django_quota.web.error_texts import SIGN_IN_ERRORS
from django_quota.web.pending import PendingSignIn
from tests.helpers.rows import store_tokens
from tests.signing import CLIENT_ID, ISSUER, NONCE, NOW, b64, claims, ec_jwk, forge, jwk, rsa_key
from tests.tiny_server import Answer, TinyServer

pytestmark = [
    pytest.mark.fuzz,
    pytest.mark.source("never an exception that is not ours, never a 500"),
]

DISCOVERY = "/.well-known/openid-configuration"
DAY = 86_400
HEADER = {"alg": "RS256", "kid": "k1", "typ": "JWT"}
TOKENS = {
    "access_token": "quota_token_hush1",
    "refresh_token": "quota_refresh_hush2",
    "id_token": "head.hush3.signature",
    "token_type": "Bearer",
    "expires_in": 3600,
    "scope": "openid email",
}
PACKAGE = {"id": "p1", "name": "Small", "price_cents": 500, "balance_display": "$5.00"}

set_hypothesis_home_dir(Path(tempfile.gettempdir(), "django_quota_hypothesis"))
TIMES = int(os.environ.get("FUZZ_TIMES", "1"))


def examples(number: int) -> hypothesis_settings:
    """How many inputs a property is shown, when it is not FUZZ_TIMES as many."""
    return hypothesis_settings(
        max_examples=number * TIMES,
        derandomize=TIMES == 1,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


# Text with lone surrogates, which JSON can carry and UTF-8 cannot.
texts = st.text(st.characters(), max_size=60)
WORDS = st.sampled_from(
    [
        *(ISSUER, CLIENT_ID, NONCE, "RS256", "k1", "Bearer", "bearer", "oauth_user", "3600"),
        *("invalid_grant", "invalid_token", "invalid_client", "insufficient_scope"),
        *("x" * 300, "\x00", "\ud800"),
    ]
)
times = st.integers(-2 * DAY, 2 * DAY).map(NOW.__add__) | st.floats()
scalars = st.none() | st.booleans() | st.integers() | times | texts | WORDS
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts | WORDS, inner, max_size=4),
    max_leaves=8,
)


@st.composite
def near(draw: st.DrawFn, honest: dict[str, Any], changes: Any = values) -> dict[str, Any]:
    """`honest` with some members changed, left out or added."""
    changed = honest | draw(
        st.dictionaries(st.sampled_from([*honest]) | texts, changes, max_size=3)
    )
    for name in draw(st.sets(st.sampled_from([*honest]), max_size=1)):
        del changed[name]
    return changed


def outcome(ask: Callable[[], Any]) -> Any:
    """What `ask` gives, or the QuotaError that it raises; any other exception passes."""
    try:
        return ask()
    except QuotaError as error:
        assert str(error) and "hush" not in str(error)
        return error


# id_tokens


#: Of the access token that `validated` has, by OpenID Connect Core 1.0 section 3.1.3.6.
AT_HASH = b64(hashlib.sha256(b"quota_token_hush").digest()[:16])


def validated(token: object) -> Any:
    """The Identity in `token`, or the SignInFailed that refuses it."""
    keys = id_token.usable_keys({"keys": [jwk()]})
    result = outcome(
        lambda: id_token.validate(
            id_token.verify(token, keys),
            issuer=ISSUER,
            audience=CLIENT_ID,
            nonce=NONCE,
            access_token="quota_token_hush",
            now=NOW,
            leeway=60,
        )
    )
    if isinstance(result, QuotaError):
        assert type(result) is SignInFailed
        assert result.code == "invalid_id_token"
    return result


def is_right(header: dict[str, Any], said: dict[str, Any]) -> bool:
    """OpenID Connect Core 1.0 section 3.1.3.7, in other words than the package's."""
    named: Any = said.get("aud")
    audiences = named if isinstance(named, list) else [named]
    speakers = [CLIENT_ID, None] if len(audiences) == 1 else [CLIENT_ID]
    instants = [said.get("exp"), said.get("iat"), said.get("nbf", NOW)]
    if not all(type(instant) in (int, float) and abs(instant) < 2**53 for instant in instants):
        return False
    expires, issued, begins = instants
    return (
        (header.get("alg"), header.get("kid", "k1"), "crit" in header) == ("RS256", "k1", False)
        and header.get("b64") is not False
        and (said.get("iss"), said.get("nonce")) == (ISSUER, NONCE)
        and isinstance(said.get("sub"), str)
        and 0 < len(said["sub"]) < 256
        and said["sub"].isprintable()
        and CLIENT_ID in audiences
        and all(audience in (CLIENT_ID, ISSUER) for audience in audiences)
        and said.get("azp") in speakers
        and expires > NOW - 60
        and NOW - DAY - 60 <= issued <= NOW + 60
        and begins <= NOW + 60
        and said.get("at_hash") in (None, AT_HASH)
    )


FULL_CLAIMS = claims(
    nbf=NOW, azp=CLIENT_ID, email="ada@example.com", email_verified=True, name="Ada", picture=ISSUER
)
parties = st.sampled_from([CLIENT_ID, ISSUER, "other"])
payloads = (
    near(FULL_CLAIMS)
    | st.builds(claims, sub=texts | WORDS)
    | st.builds(claims, exp=times, iat=times, nbf=times)
    | st.builds(claims, aud=st.lists(parties, max_size=3), azp=parties | st.none())
)


@examples(300)
@given(header=st.just(HEADER) | near(HEADER), said=payloads)
@example(header=HEADER, said=claims())
@example(header=HEADER, said=claims(exp=10**400))
@example(header=HEADER, said=claims(at_hash=AT_HASH))
@example(header=HEADER, said=claims(at_hash=AT_HASH[1:]))
@example(header=HEADER, said=claims(nbf=True))
@example(header=HEADER, said=claims(nbf=NOW + 61))
@example(header=HEADER, said=claims(sub="s" * 256))
@example(header=HEADER, said=claims(name="Ada\x00"))
@example(header=HEADER | {"kid": "k2"}, said=claims())
@example(header=HEADER, said=claims(nonce="\ud800"))
@example(header=HEADER | {"crit": ["b64"], "b64": True}, said=claims())
def test_a_signed_id_token_is_believed_if_and_only_if_all_of_it_is_right(
    header: dict[str, Any], said: dict[str, Any]
) -> None:
    token = forge(header, said)
    assume(len(token) <= id_token.MAX_TOKEN_LENGTH)

    result = validated(token)

    assert isinstance(result, id_token.Identity) is is_right(header, said)
    if isinstance(result, id_token.Identity):
        assert (result.issuer, result.subject) == (ISSUER, said["sub"])
        assert result.email in ("", said.get("email"))
        assert result.email_verified is (said.get("email_verified") is True)
        assert all(text.isprintable() for text in (result.email, result.name, result.picture))


segments = st.binary(max_size=200).map(b64) | texts
nested = st.sampled_from([b'{"a":' * 3000 + b"1" + b"}" * 3000, b"[" * 9000, b"9" * 5000])


@examples(150)
@given(
    token=st.builds(".".join, st.tuples(segments, segments, segments)) | texts | values,
    at=st.integers(0, 600),
    change=texts,
    payload=nested | st.binary(max_size=100),
)
def test_any_other_id_token_is_refused(token: object, at: int, change: str, payload: bytes) -> None:
    honest = forge(HEADER, claims())
    mangled = honest[:at] + change + honest[at + len(change) :]
    unsigned = forge(HEADER, claims(sub="eve"), payload)
    candidates = [token, mangled, unsigned, forge(HEADER, payload), forge(payload, claims())]

    for candidate in candidates:
        result = validated(candidate)
        # Base64 may have another spelling for the same bytes; nothing else may be believed.
        assert isinstance(result, SignInFailed) or result == validated(honest)
        kid = outcome(lambda candidate=candidate: id_token.key_id(candidate))  # type: ignore[misc]
        assert kid is None or isinstance(kid, str | SignInFailed)
        if isinstance(candidate, str):
            assert isinstance(id_token.unverified_claims(candidate), dict)


# JWK Sets

PRIVATE = RSAAlgorithm.to_jwk(rsa_key(), as_dict=True)
real_keys = st.sampled_from(
    [
        *(jwk(), jwk(bits=1024), jwk(e="AQ"), jwk(use="enc"), jwk(alg="RS512"), ec_jwk()),
        *(jwk(d=PRIVATE["d"]), PRIVATE),
    ]
)
numbers = values | st.binary(max_size=400).map(b64)


@examples(200)
@given(members=st.lists(real_keys.flatmap(lambda key: near(key, numbers)) | values, max_size=4))
def test_only_strong_public_keys_for_signatures_are_used(members: list[Any]) -> None:
    usable = id_token.usable_keys({"keys": members})

    for key in usable:
        assert isinstance(key.key, RSAPublicKey)
        assert key.key.key_size >= 2048
        assert (key.key_type, key.public_key_use or "sig") == ("RSA", "sig")
        assert key._jwk_data.get("alg", "RS256") == "RS256"
        assert key.key_id is None or isinstance(key.key_id, str)
    assert len(usable) <= sum(isinstance(m, dict) and m.get("kty") == "RSA" for m in members)


@examples(50)
@given(document=near({"keys": [jwk()]}))
def test_a_strange_key_set_has_no_keys(document: dict[str, Any]) -> None:
    assert len(id_token.usable_keys(document)) in (0, 1)


def test_a_private_key_is_not_factored() -> None:
    """PyJWT would look for the primes of this one for seconds, and for hours with ten times the
    digits, which still fit into a reply."""
    modulus = (1 << 16_000) + 7
    number = b64(modulus.to_bytes(2001, "big"))
    started = time.process_time()

    assert id_token.usable_keys({"keys": [jwk(n=number, d=number)]}) == []
    assert time.process_time() - started < 1


# Discovery documents

METADATA = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/oauth/authorize",
    "token_endpoint": f"{ISSUER}/oauth/token",
    "userinfo_endpoint": f"{ISSUER}/oauth/userinfo",
    "jwks_uri": f"{ISSUER}/.well-known/jwks.json",
    "revocation_endpoint": f"{ISSUER}/oauth/revoke",
    "end_session_endpoint": f"{ISSUER}/oauth/logout",
    "authorization_response_iss_parameter_supported": True,
}
url_parts = st.sampled_from(
    [
        *("https:", "http:", "//", "/", "\\", "@", ":443", ":8443", ":", "?", "#", "[::1]"),
        *("api.usequota.ai", "API.UseQuota.AI", ".evil.example"),
        *("\t", "\n", " ", "\x00", "\ud800", "%2e", "\u3002", "\u00e9"),
    ]
)
urls = st.tuples(
    st.sampled_from([ISSUER, "", " ", "https://ada@api.usequota.ai", "ftp://api.usequota.ai"]),
    st.lists(url_parts | texts, max_size=4).map("".join),
).map("".join)


@examples(400)
@given(document=near(METADATA, urls | values))
@example(document=METADATA | {"end_session_endpoint": f"{ISSUER}/\ud800"})
@example(document=METADATA | {"token_endpoint": f" \x00{ISSUER}/token"})
@example(document=METADATA | {"authorization_endpoint": f"{ISSUER}/{'a' * 20_000}"})
def test_every_endpoint_is_quotas(document: dict[str, Any]) -> None:
    found = outcome(lambda: discovery._checked_metadata(document))

    if isinstance(found, QuotaError):
        return
    assert found.issuer == ISSUER
    urls = [found.authorization_endpoint, found.token_endpoint, found.userinfo_endpoint]
    urls += [found.jwks_uri, found.revocation_endpoint or ISSUER]
    urls += [found.end_session_endpoint or ISSUER]
    for url in urls:
        # RFC 3986 section 2 has no other characters; a redirect has no room for many more.
        assert re.fullmatch(r"https://api\.usequota\.ai(:443|:)?([/?#][!-~]*)?", url, re.IGNORECASE)
        assert len(url) <= 2000
        prepared = requests.Request("POST", url).prepare().url or ""
        assert urlsplit(prepared).hostname == "api.usequota.ai"  # where the secret would go


# Replies, over real HTTP


class Server(TinyServer):
    def __repr__(self) -> str:
        return "quota"  # hypothesis writes it down with each input


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def quota(running: Server, settings: Settings) -> Iterator[Server]:
    """A Quota that answers whatever it is told to, with an honest discovery document."""
    settings.QUOTA_BASE_URL = running.origin
    settings.QUOTA_CLIENT_SECRET = "quota_secret_hush"
    settings.QUOTA_TIMEOUT = 2
    settings.QUOTA_DEADLINE = 4
    running.on(DISCOVERY, http_answer(200, {}, json_bytes({"issuer": running.origin})))
    yield running
    transport._session().close()


def json_bytes(value: Any) -> bytes:
    return json.dumps(value).encode()


def http_answer(status: int, headers: dict[str, str], body: bytes) -> Answer:
    """The answer, after which the connection is closed: nothing is left over for the next one."""
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in headers.items())]
    return Answer(head="\r\n".join([*lines, "", ""]).encode("latin-1") + body, keep=False)


latin = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=40)
header_values = latin | st.sampled_from(
    ["gzip", "br", "identity", "chunked", "7", "-1", "1, 2", "max-age=60", "\u00b2", "9" * 5000]
)
header_names = st.sampled_from(
    [
        *("Content-Length", "Content-Encoding", "Transfer-Encoding", "Content-Type", "Connection"),
        *("Cache-Control", "Retry-After", "Set-Cookie", "Location", "WWW-Authenticate", "X-Odd"),
    ]
)
headers = st.dictionaries(header_names, header_values, max_size=3)
statuses = st.sampled_from([200, 200, 200, 400, 400, 401, 402, 403, 429]) | st.integers(200, 599)
errors = st.sampled_from(
    ["invalid_grant", "invalid_token", "invalid_client", "unauthorized_client", "server_error"]
)
error_bodies = errors.map(lambda code: {"error": code}) | (errors | values).map(
    lambda code: {"error": {"code": code, "message": "hush"}}
)


def bodies(honest: dict[str, Any]) -> st.SearchStrategy[bytes]:
    return (near(honest) | error_bodies | values).map(json_bytes) | st.binary(max_size=200) | nested


def ends_the_connection(status: int, body: bytes) -> bool:
    """True if this answer says that the refresh token is spent (RFC 6749 section 5.2); some
    providers say so with status 200."""
    try:
        error = json.loads(body)["error"]
        code = error["code"] if isinstance(error, dict) else error
    except (ValueError, TypeError, KeyError, RecursionError):
        return False
    return status in (200, 400, 401) and code in ("invalid_grant", "invalid_token")


@examples(150)
@given(status=statuses, headers=headers, body=bodies(TOKENS))
@example(status=200, headers={}, body=json_bytes(TOKENS | {"expires_in": 0.5}))
@example(status=200, headers={}, body=json_bytes(TOKENS | {"expires_in": 1e400}))
@example(status=200, headers={}, body=json_bytes(TOKENS | {"access_token": "a\r\nb"}))
@example(status=200, headers={}, body=json_bytes(TOKENS | {"scope": "a\x00b"}))
@example(status=200, headers={}, body=b"[" * 50_000)
@example(status=200, headers={"Content-Length": "0,1"}, body=b"{}")
@example(status=400, headers={}, body=b'{"error": "invalid_grant"}')
@example(status=403, headers={}, body=b'{"error": "invalid_grant"}')
@pytest.mark.filterwarnings("ignore:Generating overly large repr")
def test_a_token_reply_is_tokens_or_our_error(
    quota: Server, status: int, headers: dict[str, str], body: bytes
) -> None:
    quota.on("/oauth/token", http_answer(status, headers, body))

    for result in (
        outcome(lambda: endpoints.refresh("quota_refresh_hush")),
        outcome(
            lambda: endpoints.exchange_code(
                code="c", redirect_uri="https://a.b/", code_verifier="v"
            )
        ),
    ):
        if isinstance(result, ReauthenticationRequired):
            assert ends_the_connection(status, body)
        elif isinstance(result, endpoints.TokenReply):
            assert 200 <= status < 300
            for token in (result.access_token, result.refresh_token, result.id_token):
                assert token is None or re.fullmatch("[!-~]{1,16384}", token)
            assert 1 <= result.expires_in <= 30 * DAY and type(result.expires_in) is int
            assert result.scope is None or result.scope.isprintable()
        else:
            assert isinstance(result, QuotaError)


API: dict[str, dict[str, Any]] = {
    "/v1/balance": {"balance": 1_000_000, "wallet": "oauth_user", "user_id": "u1"},
    "/v1/packages": {"packages": [PACKAGE]},
    "/oauth/userinfo": {"sub": "u1", "email": "ada@example.com"},
    "/api/payments/checkout": {
        "checkout_url": "https://pay.example/1",
        "url": "https://pay.example",
    },
    "/oauth/revoke": {"ok": True},
    "/developers/apps": {"client_id": "quota_client_1"},
}
api_replies = st.sampled_from([*API]).flatmap(
    lambda path: st.tuples(
        st.just(path), bodies(API[path]) | near(API[path], urls | values).map(json_bytes)
    )
) | st.lists(near(PACKAGE) | values, max_size=3).map(
    lambda offers: ("/v1/packages", json_bytes({"packages": offers}))
)


def ask_api(path: str) -> Any:
    """What the function behind `path` makes of the answer there."""
    if path == "/v1/balance":
        return wallet_api.fetch_balance("t").credits
    if path == "/v1/packages":
        return wallet_api.fetch_packages()
    if path == "/oauth/userinfo":
        return endpoints.fetch_userinfo("t")
    if path == "/oauth/revoke":
        return endpoints.revoke("quota_refresh_hush", "refresh_token")
    if path == "/developers/apps":
        return developers.save_app("sess_hush", {}, client_id=None)
    return wallet_api.create_checkout("t", package_id="p1", success_url="s", cancel_url="c")


@examples(250)
@given(status=statuses, headers=headers, path_and_body=api_replies)
@example(
    status=200,
    headers={},
    path_and_body=("/v1/packages", json_bytes({"packages": [PACKAGE | {"name": "a\x00"}]})),
)
@example(
    status=200,
    headers={},
    path_and_body=("/api/payments/checkout", b'{"url": "https://pay.example/\\ud800"}'),
)
@pytest.mark.filterwarnings("ignore:Generating overly large repr")
def test_a_reply_of_the_api_is_well_formed_or_our_error(
    quota: Server, status: int, headers: dict[str, str], path_and_body: tuple[str, bytes]
) -> None:
    path, body = path_and_body
    quota.on(path, http_answer(status, headers, body))

    result = outcome(lambda: ask_api(path))

    if path == "/v1/balance":
        assert isinstance(result, QuotaError) or result is None or type(result) is int
    elif isinstance(result, tuple):
        for package in result:
            assert type(package.price_cents) is int and package.id
            assert (package.id + package.name + package.balance_display).isprintable()
    elif isinstance(result, str):
        assert result.startswith("https:") or result.startswith(quota.origin)
        assert re.fullmatch("[!-~]+", result)  # a redirect to anything else breaks
    else:
        assert isinstance(result, QuotaError | dict | bool | None)


status_lines = st.sampled_from(
    [
        *(b"HTTP/1.1 200 OK", b"HTTP/1.0 200", b"HTTP/1.1 100 Continue", b"HTTP/1.1 101 X"),
        *(b"HTTP/1.1 -1 X", b"HTTP/1.1 99999 X", b"HTTP/9 x", b"200 OK", b""),
        b"HTTP/1.1 200 " + b"x" * 70_000,
    ]
)
header_lines = st.builds("{}: {}".format, header_names, header_values).map(
    lambda line: line.encode("latin-1")
) | st.binary(max_size=40)
chunked = st.sampled_from(
    [b"5\r\n{}   \r\n0\r\n\r\n", b"zz\r\n{}", b"-1\r\n{}", b"f" * 70_000, b"2"]
)
raw_answers = st.binary(max_size=300) | st.tuples(
    status_lines,
    st.lists(header_lines, max_size=4) | st.just([b"X: y"] * 200),
    st.just(b""),
    st.binary(max_size=100) | chunked,
).map(lambda parts: b"\r\n".join([parts[0], *parts[1], *parts[2:]]))


@examples(250)
@given(raw=raw_answers)
@example(
    raw=b'HTTP/1.1 429 X\r\nRetry-After: \xb2\r\nCache-Control: max-age=\xb2\r\n\r\n{"error":"No"}'
)
def test_anything_at_all_instead_of_http(quota: Server, raw: bytes) -> None:
    quota.on("/", Answer(head=raw, keep=False))

    result = outcome(lambda: transport.send_request("GET", f"{quota.origin}/", bearer="hush"))

    assert isinstance(result, transport.Reply | QuotaError)
    if isinstance(result, transport.Reply):
        assert re.fullmatch("[a-z_]{0,64}", result.error_code)
        assert (result.max_age or 0) >= 0 and (transport.retry_after(result.headers) or 0) >= 0


# What a browser sends

STATE = "live-state"
SITE = "http://localhost"
# The charset of a request is the sender's choice. (Those that Django itself breaks on, such as
# "hex", are left out.)
content_types = st.sampled_from(
    ["", "", "text/plain", "text/plain; charset=utf-7", "x; charset=raw_unicode_escape"]
)
query_names = st.sampled_from(["state", "code", "error", "iss", "next", "quota_error", "x"])
query_values = (
    st.sampled_from(
        [
            *(STATE, "", "c", "access_denied", "state_mismatch", "\\ud800", "x" * 5000),
            *("/", "/\\ud800", "//evil.example", "https://evil.example/", "javascript:alert(1)"),
            "/?next=//evil.example",
        ]
    )
    | texts
)
fields = st.lists(st.tuples(query_names, query_values), max_size=6)
queries = (
    fields.map(lambda pairs: urlencode(pairs, errors="surrogatepass").encode())
    | fields.map(lambda pairs: urlencode([("state", STATE), *pairs], errors="replace").encode())
    | st.lists(
        st.sampled_from([b"state=" + STATE.encode(), b"code=", b"&", b"=", b"%", b"%zz", b"%00"])
        | st.binary(max_size=20),
        max_size=8,
    ).map(b"".join)
    | st.just(b"code=" + b"c" * 20_000 + b"&state=" + STATE.encode())
)


@pytest.fixture
def refusing(quota: Server) -> Server:
    """A Quota that knows no code."""
    quota.on("/oauth/token", http_answer(400, {}, b'{"error": "invalid_grant"}'))
    return quota


def ask(client: Client, path: str, query: bytes, content_type: str) -> Any:
    raw = query.decode("latin-1")  # as WSGI hands it on
    return client.get(f"/auth/quota/{path}", QUERY_STRING=raw, CONTENT_TYPE=content_type)


def assert_stays_here(answer: Any, client: Client) -> None:
    """A bare 400 of Django's, or a redirect on this site with a code that has words."""
    assert SESSION_KEY not in client.session
    if answer.status_code == 400:
        return
    assert answer.status_code == 302
    there = urlsplit(answer["Location"])
    assert (there.scheme, there.netloc, there.path) == ("", "", "/auth/quota/error")
    assert parse_qs(there.query)["quota_error"][0] in SIGN_IN_ERRORS


@pytest.mark.django_db
@examples(200)
@given(query=queries, content_type=content_types)
@example(query=rb"state=\ud800", content_type="x; charset=raw_unicode_escape")
@example(query=b"code=%ED%A0%80&state=live-state", content_type="")
def test_a_callback_that_quota_did_not_send(
    refusing: Server, query: bytes, content_type: str
) -> None:
    cache.clear()  # which remembers the state that was taken
    client = Client(SERVER_NAME="localhost")
    session = client.session
    pending.save(session, PendingSignIn(redirect_uri=f"{SITE}/auth/quota/callback", state=STATE))
    session.save()

    assert_stays_here(ask(client, "callback", query, content_type), client)
    assert not get_user_model().objects.exists()
    assert not QuotaToken.objects.exists()


@pytest.mark.django_db
@examples(150)
@given(query=queries, content_type=content_types, document=near(METADATA, urls | values))
@example(query=b"", content_type="", document={"authorization_endpoint": "HERE/\ud800"})
def test_start_leads_to_quota_or_says_what_is_wrong(
    quota: Server, query: bytes, content_type: str, document: dict[str, Any]
) -> None:
    ours = json.dumps(document).replace(ISSUER, quota.origin).replace("HERE", quota.origin)
    quota.on(
        DISCOVERY, http_answer(200, {}, json_bytes({"issuer": quota.origin} | json.loads(ours)))
    )
    discovery.forget()
    client = Client(SERVER_NAME="localhost")

    answer = ask(client, "start", query, content_type)

    if not answer.headers.get("Location", "").startswith((f"{quota.origin}/", f"{quota.origin}?")):
        assert_stays_here(answer, client)


@pytest.mark.django_db
@examples(100)
@given(query=queries, content_type=content_types)
@example(query=rb"next=/\ud800", content_type="x; charset=raw_unicode_escape")
def test_the_error_page_says_something(query: bytes, content_type: str) -> None:
    answer = ask(Client(SERVER_NAME="localhost"), "error", query, content_type)

    assert answer.status_code in (200, 400)
    assert "evil.example" not in answer.content.decode()


posted = st.dictionaries(st.sampled_from(["next", "replaces", "x"]), query_values, max_size=3)
forms = posted.map(
    lambda data: ("application/x-www-form-urlencoded", urlencode(data, errors="replace").encode())
) | st.tuples(
    st.sampled_from(
        ["multipart/form-data; boundary=B; charset=raw_unicode_escape", "multipart/x", ""]
    ),
    query_values.map(
        lambda value: (
            b'--B\r\nContent-Disposition: form-data; name="next"\r\n\r\n'
            + value.encode("utf-8", "replace")
            + b"\r\n--B--\r\n"
        )
    )
    | st.binary(max_size=100),
)


@pytest.mark.django_db
@examples(100)
@given(query=queries, form=forms, signed_in=st.booleans())
def test_connect_and_logout(
    quota: Server, query: bytes, form: tuple[str, bytes], signed_in: bool
) -> None:
    client = Client(SERVER_NAME="localhost")
    if signed_in:
        client.force_login(
            get_user_model().objects.get_or_create(username="ada")[0],
            "django.contrib.auth.backends.ModelBackend",
        )
    content_type, body = form

    page = ask(client, "connect", query, content_type)
    connect = client.generic("POST", "/auth/quota/connect", body, content_type)
    logout = client.generic("POST", "/auth/quota/logout", body, content_type)

    assert page.status_code == (200 if signed_in else 302) or page.status_code == 400
    for answer in (page, connect, logout):
        assert answer.status_code in (200, 302, 400)
        assert urlsplit(answer.headers.get("Location", "/")).netloc in (
            "",
            urlsplit(quota.origin).netloc,
        )
    assert SESSION_KEY not in client.session or logout.status_code == 400


@pytest.mark.django_db
def test_logout_with_the_longest_id_token(quota: Server) -> None:
    """It does not fit into a redirect: the sign-out goes by the client id alone."""
    ends = {"issuer": quota.origin, "end_session_endpoint": f"{quota.origin}/oauth/logout"}
    quota.on(DISCOVERY, http_answer(200, {}, json_bytes(ends)))
    user = get_user_model().objects.create(username="ada")
    account = ProviderAccount.objects.create(user=user, external_id="u1", issuer=quota.origin)
    longest = endpoints.TokenReply(
        access_token="quota_token_1",
        refresh_token=None,
        id_token="x" * id_token.MAX_TOKEN_LENGTH,
        expires_in=3600,
        scope=None,
    )
    store_tokens(account, longest, asked="openid")
    client = Client(SERVER_NAME="localhost")
    client.force_login(user, "django.contrib.auth.backends.ModelBackend")

    answer = client.post("/auth/quota/logout", headers={"accept": "text/html"})

    assert answer.status_code == 302
    assert answer["Location"].startswith(f"{quota.origin}/oauth/logout?")
    assert "id_token_hint" not in answer["Location"]
    assert len(answer["Location"]) < 4096
    assert SESSION_KEY not in client.session


WHSEC = "whsec_hush"
EVENT: dict[str, Any] = {
    "id": "evt_1",
    "type": "balance.updated",
    "created_at": "2026-11-24T12:00:00Z",
    "data": {
        "user_id": "sub-1",
        "new_balance": 5,
        "current_balance": 5,
        "threshold": 9,
        "disconnected_at": "2026-11-24T12:00:00Z",
    },
}
moments = st.sampled_from(["2026-11-24T12:00:00Z", "2026-11-24T12:00:00.5+01:00", "20261124T12"])
kinds = st.sampled_from(["balance.updated", "balance.low", "user.disconnected", "user.connected"])
events = st.builds(
    lambda data, changes, kind, moment: (
        EVENT | {"data": data, "type": kind, "created_at": moment} | changes
    ),
    near(EVENT["data"]),
    st.just({}) | near(EVENT, values | kinds | moments),
    kinds,
    moments,
)


@pytest.fixture
def at_noon(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.QUOTA_WEBHOOK_SECRET = WHSEC
    noon = datetime(2026, 11, 24, 12, tzinfo=UTC)
    monkeypatch.setattr("django_quota.web.webhook_delivery.timezone.now", lambda: noon)


header_texts = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=80)


@pytest.mark.django_db
@examples(300)
@given(
    body=events.map(json_bytes) | st.binary(max_size=200) | texts.map(json_bytes),
    signature=st.none() | header_texts,
)
@example(body=b"[" * 60_000, signature=None)
@example(body=b'{"data": {}, "id": "e", "type": "t", "created_at": 1e999}', signature=None)
@example(body=json_bytes(EVENT | {"created_at": "0001-01-01T00:00:00+14:00"}), signature=None)
def test_a_webhook_is_taken_or_refused(body: bytes, signature: str | None, at_noon: None) -> None:
    """Signed as Quota would, whatever it says; or with any signature at all."""
    WebhookEvent.objects.all().delete()
    user, _is_new = get_user_model().objects.get_or_create(username="ada")
    ProviderAccount.objects.get_or_create(user=user, external_id="sub-1")
    honest = hmac.new(WHSEC.encode(), body, hashlib.sha256).hexdigest()
    answer = Client().post(
        "/auth/quota/webhook",
        body,
        content_type="application/json",
        headers={"X-Quota-Signature": honest if signature is None else signature},
    )
    if signature is None:
        assert answer.status_code in (200, 400, 409)
    else:
        assert answer.status_code == 403
    assert WHSEC not in answer.content.decode()
