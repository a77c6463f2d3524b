"""id_tokens that an honest provider would never send: each is refused for its own reason."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from jwt.algorithms import RSAAlgorithm

from tests import signing
from tests.helpers.browser import Browser
from tests.hostile.conftest import Refused
from tests.hostile.provider import CLIENT_ID, CLIENT_SECRET, HostileProvider
from tests.tiny_server import TinyServer, json_answer

pytestmark = pytest.mark.django_db

Change = Callable[[HostileProvider], None]
Sign = Callable[[Any, Any], str]


def case(name: str, source: str, change: Change, reason: str) -> Any:
    return pytest.param(change, reason, id=name, marks=pytest.mark.source(source))


def claims(**changes: Any) -> Change:
    """An id_token with other claims; `...` leaves one out."""
    return lambda provider: provider.claims.update(changes)


def header(**changes: Any) -> Change:
    """An id_token with another header, still signed with the provider's key under RS256."""
    return lambda provider: provider.header.update(changes)


def signed(sign: Sign) -> Change:
    """An id_token that comes about in another way."""
    return lambda provider: setattr(provider, "sign", sign)


def with_alg(alg: str, sign: Sign) -> Change:
    return signed(lambda header, claims: sign(header | {"alg": alg}, claims))


def by_hmac(secret: bytes) -> Sign:
    return lambda header, claims: signing.forge_hmac(header, claims, secret)


def times(**seconds: float) -> Change:
    """Times so many seconds from when the case runs."""

    def change(provider: HostileProvider) -> None:
        provider.claims |= {name: int(time.time() + after) for name, after in seconds.items()}

    return change


def claims_changed_after_signing(header: Any, claims: Any) -> str:
    honest = signing.forge(header, claims)
    forged = signing.forge(header, claims | {"sub": "somebody-else"})
    return f"{forged.rpartition('.')[0]}.{honest.rpartition('.')[2]}"


#: As deep as fits into what is read at all.
DEEP = b"[" * 5900 + b"]" * 5900


def wrapped(header: Any, claims: Any) -> str:
    """RFC 7519 section 5.2: a JWT in a JWT, for which the client never asked."""
    inner = signing.forge(header, claims)
    return signing.forge(header | {"cty": "JWT"}, inner.encode())


CASES = [
    # The access token.
    case(
        "at_hash of another access token",
        "OIDC Core 3.1.3.8; oidcc-client-test-invalid-athash",
        claims(at_hash="77QmUPtjPfzWtF2AnpK9RQ"),
        "at_hash does not match the access token",
    ),
    # The signature.
    case(
        "signed with another key",
        "OIDC Core 3.1.3.7 item 6; oidcc-client-test-invalid-sig-rs256",
        signed(lambda header, claims: signing.forge(header, claims, key="attacker")),
        "signature is wrong",
    ),
    case(
        "claims changed after signing",
        "RFC 7515 section 5.2",
        signed(claims_changed_after_signing),
        "signature is wrong",
    ),
    case(
        "no signature under RS256",
        "RFC 8725 section 3.3",
        signed(lambda header, claims: signing.forge(header, claims, b"")),
        "signature is wrong",
    ),
    case(
        "alg none",
        "RFC 8725 section 3.1; oidcc-client-test-idtoken-sig-none",
        with_alg("none", lambda header, claims: signing.forge(header, claims, b"")),
        "not signed with RS256",
    ),
    case(
        "HS256 with the client secret",
        "OIDC Core 3.1.3.7 item 8; oidcc-client-test-invalid-sig-hs256",
        with_alg("HS256", by_hmac(CLIENT_SECRET.encode())),
        "not signed with RS256",
    ),
    case(
        "HS256 with the public key for a secret",
        "RFC 8725 section 2.1",
        with_alg("HS256", by_hmac(signing.public_pem())),
        "not signed with RS256",
    ),
    case(
        "HMAC with the public key, called RS256",
        "RFC 8725 section 2.1",
        signed(by_hmac(signing.public_pem())),
        "signature is wrong",
    ),
    case(
        "ES256",
        "OIDC Core 3.1.3.7 item 7; oidcc-client-test-invalid-sig-es256",
        with_alg("ES256", lambda header, claims: signing.forge(header, claims, b"\1" * 64)),
        "not signed with RS256",
    ),
    case(
        "RS512 with the right key",
        "OIDC Core 3.1.3.7 item 7; RFC 8725 section 3.1",
        with_alg("RS512", signing.forge_rs512),
        "not signed with RS256",
    ),
    # The parties.
    case("no iss", "OIDC Core section 2", claims(iss=...), "has no iss"),
    case(
        "another provider's iss",
        "OIDC Core 3.1.3.7 item 2; oidcc-client-test-invalid-iss",
        claims(iss="https://evil.example"),
        "iss is not the issuer",
    ),
    case(
        "iss with a slash more",
        "OIDC Core 3.1.3.7 item 2 (an exact match)",
        lambda provider: provider.claims.update(iss=f"{provider.origin}/"),
        "iss is not the issuer",
    ),
    case(
        "iss as a list with the right one",
        "OIDC Core section 2",
        lambda provider: provider.claims.update(iss=[provider.origin]),
        "iss is not the issuer",
    ),
    case(
        "no sub",
        "OIDC Core section 2; oidcc-client-test-missing-sub",
        claims(sub=...),
        "has no sub",
    ),
    case("empty sub", "OIDC Core section 2", claims(sub=""), "no usable sub"),
    case("sub of 256 characters", "OIDC Core section 2", claims(sub="s" * 256), "sub is too long"),
    case("sub a number", "OIDC Core section 2", claims(sub=7), "no usable sub"),
    case(
        "sub with NUL, which PostgreSQL cannot keep",
        "OIDC Core section 2 (ASCII)",
        claims(sub="ada\0"),
        "no usable sub",
    ),
    case(
        "no aud",
        "OIDC Core section 2; oidcc-client-test-missing-aud",
        claims(aud=...),
        "has no aud",
    ),
    case(
        "another client's aud",
        "OIDC Core 3.1.3.7 item 3; oidcc-client-test-invalid-aud",
        claims(aud="quota_client_other"),
        "aud is not our client id",
    ),
    case(
        "several others' aud",
        "OIDC Core 3.1.3.7 item 3",
        claims(aud=["quota_client_other", "quota_client_third"]),
        "aud is not our client id",
    ),
    case(
        "aud that has our id in it",
        "OIDC Core 3.1.3.7 item 3",
        claims(aud=f"{CLIENT_ID}-and-more"),
        "aud is not our client id",
    ),
    case(
        "several audiences without azp",
        "OIDC Core 3.1.3.7 item 4",
        lambda provider: provider.claims.update(aud=[CLIENT_ID, provider.origin]),
        "several audiences and no azp",
    ),
    case(
        "several audiences with our azp",
        "OIDC Core 3.1.3.7 item 3",
        claims(aud=["quota_client_other", CLIENT_ID], azp=CLIENT_ID),
        "aud names another audience, too",
    ),
    case(
        "another client's azp",
        "OIDC Core 3.1.3.7 item 5",
        lambda provider: provider.claims.update(
            aud=[CLIENT_ID, provider.origin], azp="quota_client_other"
        ),
        "azp is not our client id",
    ),
    case(
        "another client's azp with our aud alone",
        "OIDC Core 3.1.3.7 item 5",
        claims(azp="quota_client_other"),
        "azp is not our client id",
    ),
    # The times; QUOTA_CLOCK_SKEW is 60 seconds.
    case("no exp", "OIDC Core section 2", claims(exp=...), "has no exp"),
    case("exp past the leeway", "OIDC Core 3.1.3.7 item 9", times(exp=-70), "expired (exp)"),
    case(
        "exp a text", "RFC 7519 section 2 (NumericDate)", claims(exp="2099-01-01"), "exp is not a"
    ),
    case("exp true", "RFC 7519 section 2", claims(exp=True), "exp is not a number"),
    case(
        "exp infinite",
        "RFC 8259 section 6",
        claims(exp=float("inf")),
        "exp is not a number",
    ),
    case(
        "no iat",
        "OIDC Core section 2; oidcc-client-test-missing-iat",
        claims(iat=...),
        "has no iat",
    ),
    case("iat past the leeway", "OIDC Core 3.1.3.7 item 10", times(iat=90), "the future (iat)"),
    case(
        "iat in milliseconds",
        "RFC 7519 section 4.1.6",
        claims(iat=int(time.time() * 1000)),
        "from the future (iat)",
    ),
    case("iat two days ago", "OIDC Core 3.1.3.7 item 10", times(iat=-172_800), "long ago (iat)"),
    case(
        "iat not a number", "RFC 8259 section 6 (no NaN)", claims(iat=float("nan")), "iat is not a"
    ),
    case("nbf past the leeway", "RFC 7519 section 4.1.5", times(nbf=90), "not valid yet (nbf)"),
    case("nbf null", "RFC 7519 section 4.1.5", claims(nbf=None), "nbf is not a number"),
    # The nonce.
    case("no nonce", "OIDC Core 3.1.3.7 item 11", claims(nonce=...), "has no nonce"),
    case(
        "another nonce",
        "OIDC Core 3.1.3.7 item 11; oidcc-client-test-nonce-invalid",
        claims(nonce="n-0S6_WzA2Mj"),
        "nonce mismatch",
    ),
    case("empty nonce", "OIDC Core 3.1.3.7 item 11", claims(nonce=""), "nonce mismatch"),
    case("nonce a list", "OIDC Core section 2", claims(nonce=["n"]), "nonce is not a string"),
    # The header and the form.
    case("crit", "RFC 7515 section 4.1.11", header(crit=["exp"]), "header is not supported"),
    case(
        "unencoded payload",
        "RFC 7797 section 6",
        header(b64=False, crit=["b64"]),
        "not a JWT",
    ),
    case("kid a number", "RFC 7515 section 4.1.4", header(kid=7), "header is not supported"),
    case("nested JWT", "RFC 7519 section 5.2", signed(wrapped), "not a JWT"),
    case(
        "encrypted JWT",
        "RFC 7516 section 3.1",
        lambda provider: provider.token.update(id_token="e30.QQ.QQ.QQ.QQ"),
        "not a JWT",
    ),
    case(
        "not a JWT",
        "RFC 7519 section 7.2",
        lambda provider: provider.token.update(id_token="opaque"),
        "not a JWT",
    ),
    case(
        "1 MB",
        "RFC 8725 section 3.11 (bound what is parsed)",
        lambda provider: provider.token.update(id_token="e30." + "A" * 900_000),
        "no usable id_token",
    ),
    case(
        "claims nested 5,900 deep",
        "RFC 8259 section 9",
        signed(lambda header, claims: signing.forge(header, DEEP)),
        "not a JWT",
    ),
    case(
        "header nested 5,900 deep",
        "RFC 8259 section 9",
        signed(lambda header, claims: signing.forge(DEEP, {})),
        "not a JWT",
    ),
    case(
        "claims a list",
        "RFC 7519 section 7.2",
        signed(lambda header, claims: signing.forge(header, [claims])),
        "not a JWT",
    ),
]


@pytest.mark.parametrize(("change", "reason"), CASES)
def test_id_token(
    change: Change, reason: str, provider: HostileProvider, browser: Browser, refused: Refused
) -> None:
    change(provider)
    refused(browser.sign_in(), "invalid_id_token", reason)
    assert provider.asked().count("POST /oauth/token") == 1


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            "jku", marks=pytest.mark.source("RFC 7515 section 4.1.2; RFC 8725 section 3.10")
        ),
        pytest.param(
            "x5u", marks=pytest.mark.source("RFC 7515 section 4.1.5; RFC 8725 section 3.10")
        ),
    ],
)
def test_a_key_that_the_token_points_to_is_never_fetched(
    name: str, provider: HostileProvider, browser: Browser, refused: Refused
) -> None:
    with TinyServer() as attacker:
        attacker.on("/keys", json_answer({"keys": [signing.jwk("k1", name="attacker")]}))
        provider.header = {name: f"{attacker.origin}/keys"}
        provider.sign = lambda header, claims: signing.forge(header, claims, key="attacker")
        refused(browser.sign_in(), "invalid_id_token", "signature is wrong")
        assert attacker.requests == []


@pytest.mark.source("RFC 7515 section 4.1.3; RFC 8725 section 3.10")
def test_a_key_in_the_token_is_not_used(
    provider: HostileProvider, browser: Browser, refused: Refused
) -> None:
    public = signing.rsa_key("attacker").public_key()
    provider.header = {"jwk": RSAAlgorithm.to_jwk(public, as_dict=True)}
    provider.sign = lambda header, claims: signing.forge(header, claims, key="attacker")
    refused(browser.sign_in(), "invalid_id_token", "signature is wrong")


@pytest.mark.source("OIDC Core 3.1.3.7 item 11 (replay)")
def test_an_id_token_of_another_sign_in(
    provider: HostileProvider, browser: Browser, refused: Refused
) -> None:
    """Stolen from a sign-in that went well somewhere else, and served again."""
    provider.token = {"id_token": provider.id_token("the nonce of that one")}
    refused(browser.sign_in(), "invalid_id_token", "nonce mismatch")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param(change, why, id=why, marks=pytest.mark.source(source))
        for why, source, change in (
            ("as it should be", "oidcc-client-test; oidcc-client-test-idtoken-sig-rs256", claims()),
            ("exp within the leeway", "OIDC Core 3.1.3.7 item 9", times(exp=-30, iat=-3600)),
            ("iat within the leeway", "OIDC Core 3.1.3.7 item 10", times(iat=30)),
            ("nbf within the leeway", "RFC 7519 section 4.1.5", times(nbf=30)),
            ("aud a list of one", "RFC 7519 section 4.1.3", claims(aud=[CLIENT_ID])),
            (
                "the provider in the audience, too, with our azp",
                "OIDC Core 3.1.3.7 items 3 to 5",
                lambda provider: provider.claims.update(
                    aud=[provider.origin, CLIENT_ID], azp=CLIENT_ID
                ),
            ),
            ("sub of 255 characters", "OIDC Core section 2", claims(sub="s" * 255)),
            ("typ missing", "RFC 7519 section 5.1", header(typ=...)),
        )
    ],
)
def test_an_honest_one_is_believed(
    change: Change, why: str, provider: HostileProvider, browser: Browser
) -> None:
    """Else the others could be green for a wrong reason, and customers signed out for none."""
    change(provider)
    assert browser.sign_in(next="/?welcome=1")["Location"] == "/?welcome=1"
