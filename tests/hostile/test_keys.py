"""Quota's keys: which may vouch for a person, how long they are kept, how often fetched."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from pytest_django.fixtures import Settings

from django_quota.models import ProviderAccount
from django_quota.oidc import cached_document, discovery
from django_quota.oidc.transport import MAX_REPLY_BYTES
from tests import signing
from tests.helpers.browser import Browser
from tests.hostile.conftest import Refused
from tests.hostile.provider import JWKS, REMOVED, HostileProvider
from tests.tiny_server import HANG_UP, Answer, TinyServer, answer, json_answer

pytestmark = pytest.mark.django_db

NO_KEY = "holds no usable key"


def case(name: str, source: str, *values: Any, marks: Any = ()) -> Any:
    return pytest.param(*values, id=name, marks=[pytest.mark.source(source), *marks])


def fetched(provider: HostileProvider) -> int:
    return provider.asked().count(f"GET {JWKS}")


def signed_by(bits: int) -> Callable[[Any, Any], str]:
    """Signed with a key of that size."""

    def sign(header: Any, payload: Any) -> str:
        unsigned = signing.signing_input(header, payload).encode()
        key = signing.rsa_key(bits=bits)
        return signing.forge(
            header, payload, key.sign(unsigned, padding.PKCS1v15(), hashes.SHA256())
        )

    return sign


def signed_without_a_key(header: Any, payload: Any) -> str:
    """For the exponent 1: there the padded digest (RFC 8017 section 9.2) is its own signature."""
    digest = hashlib.sha256(signing.signing_input(header, payload).encode()).digest()
    named = bytes.fromhex("3031300d060960864801650304020105000420") + digest
    return signing.forge(header, payload, b"\0\1" + b"\xff" * (253 - len(named)) + b"\0" + named)


def rotate(provider: HostileProvider, kid: str = "k2") -> None:
    """From now on only the new key is published, and used."""
    provider.keys = [signing.jwk(kid, name=kid)]
    provider.header["kid"] = kid
    provider.sign = lambda header, payload: signing.forge(header, payload, key=kid)


class Clock:
    """The process's clock, to be moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ahead = 0.0
        real = cached_document.time.monotonic
        monkeypatch.setattr(cached_document.time, "monotonic", lambda: real() + self._ahead)

    def forward(self, seconds: float) -> None:
        self._ahead += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


# --- Which keys count ---

UNUSABLE = [
    case("EC", "RFC 7517 section 5", [signing.ec_jwk()]),
    case("OKP", "RFC 7517 section 5", [signing.okp_jwk()]),
    case("symmetric", "RFC 8725 section 2.1", [{"kty": "oct", "k": "aHVzaA", "kid": "k1"}]),
    case("for encryption", "RFC 7517 section 4.2", [signing.jwk(use="enc")]),
    case(
        "not for verifying",
        "RFC 7517 section 4.3",
        [signing.jwk(use=None, key_ops=["encrypt", "wrapKey"])],
    ),
    case("for another algorithm", "RFC 7517 section 4.4", [signing.jwk(alg="PS256")]),
    case("kid a number", "RFC 7517 section 4.5", [signing.jwk() | {"kid": 1}]),
    case("no modulus", "RFC 7518 section 6.3.1.1", [signing.jwk(n=None)]),
    case("no object", "RFC 7517 section 5.1", ["k1", 7, None, [signing.jwk()]]),
    case("no list", "RFC 7517 section 5.1", {"k1": signing.jwk()}),
    case("none at all", "RFC 7517 section 5.1", []),
]


@pytest.mark.parametrize("keys", UNUSABLE)
def test_a_key_that_may_not_sign_is_none(
    keys: Any, provider: HostileProvider, browser: Browser, refused: Refused
) -> None:
    provider.keys = keys
    provider.header["kid"] = REMOVED  # so that any key at all would do
    refused(browser.sign_in(), "provider_unavailable", NO_KEY)


@pytest.mark.source("RFC 7518 section 3.3")
def test_a_key_of_1024_bits_is_none(
    provider: HostileProvider, browser: Browser, refused: Refused
) -> None:
    provider.keys, provider.sign = [signing.jwk(bits=1024)], signed_by(1024)
    refused(browser.sign_in(), "provider_unavailable", NO_KEY)


@pytest.mark.source("RFC 8017 section 3.1")
def test_a_key_with_the_exponent_1_is_none(
    provider: HostileProvider, browser: Browser, refused: Refused
) -> None:
    """Anybody could sign for it."""
    provider.keys, provider.sign = [signing.jwk(e="AQ")], signed_without_a_key
    refused(browser.sign_in(), "provider_unavailable", NO_KEY)


@pytest.mark.source("RFC 7517 section 5; oidcc-client-test-ignores-unparseable-key-in-jwks")
def test_keys_that_may_not_sign_do_not_disturb_the_one_that_may(
    provider: HostileProvider, browser: Browser
) -> None:
    provider.keys = [
        {"kty": "AKP", "alg": "ML-DSA-512", "kid": "post-quantum", "pub": "AA"},
        {"kty": "made-up", "kid": "made-up"},
        signing.jwk("encryption", name="encryption", use="enc"),
        signing.ec_jwk("ec"),
        signing.jwk("k1"),
        None,
    ]
    provider.header["kid"] = REMOVED
    assert browser.sign_in()["Location"] == "/"


@pytest.mark.source("OIDC Core 10.1; oidcc-client-test-kid-absent-single-jwks")
def test_without_a_kid_the_only_key_is_meant(provider: HostileProvider, browser: Browser) -> None:
    provider.keys = [signing.jwk(None)]
    provider.header["kid"] = REMOVED
    assert browser.sign_in()["Location"] == "/"


AMBIGUOUS = [
    case(
        "no kid and two keys",
        "OIDC Core 10.1; oidcc-client-test-kid-absent-multiple-jwks",
        [signing.jwk(None), signing.jwk(None, name="second")],
        REMOVED,
        "2 of Quota's keys fit",
    ),
    case(
        "two keys of one kid",
        "RFC 7517 section 4.5",
        [signing.jwk("k1"), signing.jwk("k1", name="second")],
        "k1",
        "2 of Quota's keys fit",
    ),
    case(
        "a kid and two keys without one",
        "RFC 7515 section 4.1.4",
        [signing.jwk(None), signing.jwk(None, name="second")],
        "k1",
        "0 of Quota's keys fit",
    ),
    case(
        "kid in another case",
        "RFC 7515 section 4.1.4",
        [signing.jwk("k1")],
        "K1",
        "0 of Quota's keys fit",
    ),
]


@pytest.mark.parametrize(("keys", "kid", "reason"), AMBIGUOUS)
def test_no_key_is_guessed(
    keys: list[Any],
    kid: Any,
    reason: str,
    provider: HostileProvider,
    browser: Browser,
    refused: Refused,
) -> None:
    """Each of these was signed with the first key, so that trying them all would find it."""
    provider.keys, provider.header["kid"] = keys, kid
    refused(browser.sign_in(), "invalid_id_token", reason)


# --- Rotation ---


@pytest.mark.source("OIDC Core 10.1.1; oidcc-client-test-signing-key-rotation")
def test_a_new_key_is_fetched_once(provider: HostileProvider, browser: Browser) -> None:
    browser.sign_in()
    rotate(provider)
    for _ in range(3):
        assert browser.sign_in()["Location"] == "/"
    assert fetched(provider) == 2


@pytest.mark.source("OIDC Core 10.1.1; oidcc-client-test-signing-key-rotation-just-before-signing")
def test_a_key_may_change_while_somebody_signs_in(
    provider: HostileProvider, browser: Browser
) -> None:
    browser.sign_in()

    def rotate_and_sign(header: Any, payload: Any) -> str:
        rotate(provider)
        return provider.sign(header | {"kid": "k2"}, payload)

    provider.sign = rotate_and_sign
    assert browser.sign_in()["Location"] == "/"
    assert fetched(provider) == 2


@pytest.mark.source("OIDC Core 10.1.1")
def test_a_withdrawn_key_is_no_longer_believed(
    provider: HostileProvider, browser: Browser, refused: Refused
) -> None:
    """It may be withdrawn because it was stolen."""
    discovery.verified_claims(signing.sign(kid="k1"))
    rotate(provider)
    discovery.verified_claims(signing.sign(kid="k2", key="k2"))
    provider.header["kid"], provider.sign = "k1", signing.forge
    refused(browser.sign_in(), "invalid_id_token", "0 of Quota's keys fit")


@pytest.mark.source("OIDC Core 10.1.1; CWE-400")
def test_a_flood_of_unknown_kids_does_not_hammer_quota(
    provider: HostileProvider, browser: Browser, told: list[dict[str, Any]]
) -> None:
    for number in range(20):
        provider.header["kid"] = f"invented-{number}"
        browser.sign_in()
    assert {heard["code"] for heard in told} == {"invalid_id_token"}
    assert (len(told), fetched(provider)) == (20, 2)


@pytest.mark.source("OIDC Core 10.1.1")
def test_after_a_flood_a_new_key_is_found(
    provider: HostileProvider, browser: Browser, clock: Clock
) -> None:
    for number in range(3):
        provider.header["kid"] = f"invented-{number}"
        browser.sign_in()
    clock.forward(cached_document.COOL_DOWN + 1)
    rotate(provider)
    assert browser.sign_in()["Location"] == "/"


@pytest.mark.source("OIDC Discovery 7.2")
def test_the_keys_of_one_provider_do_not_count_for_another(
    provider: HostileProvider, browser: Browser, refused: Refused, settings: Settings
) -> None:
    discovery.verified_claims(signing.sign(kid="k1"))
    with TinyServer() as server:
        settings.QUOTA_BASE_URL = server.origin
        other = HostileProvider(server)
        other.keys = [signing.jwk("k1", name="second")]
        refused(browser.sign_in(), "invalid_id_token", "signature is wrong")
        assert (fetched(provider), fetched(other)) == (1, 1)


# --- Keys that cannot be had ---

HUGE = json_answer({"keys": [signing.jwk("k1")], "padding": " " * 10 * MAX_REPLY_BYTES})
TROUBLE = [
    case("hung up", "RFC 9112 section 8", HANG_UP, "cannot be reached (ConnectionError)"),
    case(
        "500 with keys",
        "RFC 9110 section 15.6.1",
        json_answer({"keys": [signing.jwk()]}, status=500),
        "no usable answer (HTTP 500)",
    ),
    case("404", "RFC 9110 section 15.5.5", answer(status=404), "no usable answer (HTTP 404)"),
    case("HTML", "RFC 7517 section 5", answer(b"<html>hush"), "no usable answer (HTTP 200)"),
    case(
        "array", "RFC 7517 section 5", json_answer([signing.jwk()]), "no usable answer (HTTP 200)"
    ),
    case(
        "slow",
        "CWE-400",
        json_answer({"keys": [signing.jwk()]}, delay=3),
        "(timed out)",
        marks=[pytest.mark.slow],
    ),
    case("10 MB", "CWE-400", HUGE, "answer is too large"),
]


@pytest.mark.parametrize(("trouble", "reason"), TROUBLE)
def test_without_keys_nobody_is_believed(
    trouble: Answer, reason: str, provider: HostileProvider, browser: Browser, refused: Refused
) -> None:
    honest = json_answer({"keys": provider.keys})
    provider.server.on(JWKS, trouble, honest)
    refused(browser.sign_in(), "provider_unavailable", reason)
    # The trouble itself is not kept: once it is over, the next person gets in.
    assert browser.sign_in()["Location"] == "/"


@pytest.mark.source("RFC 9110 section 15.4; CWE-918")
def test_a_redirect_to_other_keys_is_not_followed(
    provider: HostileProvider, browser: Browser, refused: Refused
) -> None:
    with TinyServer() as elsewhere:
        elsewhere.on("/keys", json_answer({"keys": provider.keys}))
        provider.server.on(JWKS, answer(status=302, Location=f"{elsewhere.origin}/keys"))
        refused(browser.sign_in(), "provider_unavailable", "no usable answer (HTTP 302)")
        assert elsewhere.requests == []


@pytest.mark.parametrize(
    "trouble",
    [
        case("hung up", "RFC 9112 section 8", HANG_UP),
        case("500", "RFC 9110 section 15.6.1", answer(status=500)),
        case("slow", "CWE-400", json_answer({"keys": []}, delay=3), marks=[pytest.mark.slow]),
        case("no key", "RFC 7517 section 5.1", json_answer({"keys": []})),
    ],
)
def test_known_keys_outlive_an_outage(
    trouble: Answer, provider: HostileProvider, browser: Browser, clock: Clock
) -> None:
    browser.sign_in()
    provider.server.on(JWKS, trouble)
    clock.forward(cached_document.MAX_AGE + 1)
    assert browser.sign_in()["Location"] == "/"
    assert fetched(provider) == 2
    assert ProviderAccount.objects.count() == 1
