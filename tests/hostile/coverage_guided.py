"""Coverage-guided fuzzing of everything that reads what Quota or a browser sends, by atheris.

    python -m tests.hostile.coverage_guided TARGET [libFuzzer options]

It runs until an exception escapes that is not a QuotaError, or until libFuzzer's own options end
it (-runs=200000, -max_total_time=180). What it finds becomes a test in test_fuzz.py.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

import atheris

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

with atheris.instrument_imports(include=["django_quota", "jwt"]):
    import django

    django.setup()

    from django.conf import settings
    from django.contrib.auth.models import AnonymousUser
    from django.contrib.sessions.backends.cache import SessionStore
    from django.core.cache import cache as django_cache
    from django.test import RequestFactory
    from jwt.algorithms import RSAAlgorithm
    from requests.structures import CaseInsensitiveDict

    from django_quota.exceptions import QuotaError
    from django_quota.oidc import developers, discovery, endpoints, id_token, transport, wallet_api
    from django_quota.oidc.transport import Reply
    from django_quota.web import pending, sign_in
    from django_quota.web.pending import PendingSignIn

from tests.signing import CLIENT_ID, ISSUER, NONCE, NOW, b64, claims, forge, jwk, rsa_key

Data = Any  # atheris.FuzzedDataProvider

KEYS = id_token.usable_keys({"keys": [jwk()]})
PRIVATE_JWK = RSAAlgorithm.to_jwk(rsa_key(), as_dict=True)
STATE = "the-state"
#: What random bytes would not spell in a lifetime.
WORDS = [
    *(ISSUER, CLIENT_ID, NONCE, STATE, "RS256", "k1", "RSA", "sig", "Bearer", "bearer"),
    *("oauth_user", "invalid_grant", "invalid_token", "invalid_client", "insufficient_scope"),
    *("access_denied", "invalid_scope", "server_error", "ada@example.com", "https://[", "\ud800"),
    *(f"{ISSUER}/oauth/token", "https://evil.example/", "3600", "AQAB", "AA", "eyJhbGciOiJSUzI1Ni"),
]
HONEST_TOKENS = {
    "access_token": "quota_token_1",
    "refresh_token": "quota_refresh_1",
    "id_token": "head.claims.signature",
    "token_type": "Bearer",
    "expires_in": 3600,
    "scope": "openid email",
}
HONEST_API = {
    "error": {"code": "insufficient_scope", "message": "no"},
    "balance": 1_000_000,
    "wallet": "oauth_user",
    "user_id": "u1",
    "packages": [{"id": "p", "name": "P", "price_cents": 500, "balance_display": "$5"}],
    "checkout_url": "https://pay.example/c",
    "url": "https://pay.example/c",
}


def json_value(data: Data, depth: int = 3) -> Any:
    """Any value that Python's JSON parser can give."""
    kind = data.ConsumeIntInRange(0, 8 if depth else 5)
    if kind < 3:
        return (None, True, False)[kind]
    if kind == 3:
        return data.ConsumeInt(data.ConsumeIntInRange(1, 40))
    if kind == 4:
        return data.ConsumeFloat()
    if kind == 5:
        return data.ConsumeUnicode(data.ConsumeIntInRange(0, 300))
    if kind == 6:
        return data.PickValueInList(WORDS)
    size = range(data.ConsumeIntInRange(0, 4))
    if kind == 7:
        return [json_value(data, depth - 1) for _ in size]
    return {data.PickValueInList(WORDS): json_value(data, depth - 1) for _ in size}


def near(honest: dict[str, Any], data: Data) -> dict[str, Any]:
    """`honest` with some members changed, left out or added."""
    document = dict(honest)
    for _ in range(data.ConsumeIntInRange(0, 4)):
        name = data.PickValueInList([*honest, *WORDS])
        if data.ConsumeBool():
            document[name] = json_value(data)
        else:
            document.pop(name, None)
    return document


def body(honest: dict[str, Any], data: Data) -> bytes:
    """A reply's body: JSON near the honest one, a part of that, or no JSON at all."""
    if data.ConsumeBool():
        return bytes(data.ConsumeBytes(4096))
    text = json.dumps(near(honest, data)).encode()
    return text[: data.ConsumeIntInRange(0, len(text))] if data.ConsumeBool() else text


def headers(data: Data) -> CaseInsensitiveDict[str]:
    prefix = data.PickValueInList(["", "max-age=", "public, max-age="])
    return CaseInsensitiveDict(
        {
            "Cache-Control": prefix + data.ConsumeBytes(20).decode("latin-1"),
            "Retry-After": data.ConsumeBytes(12).decode("latin-1"),
        }
    )


def reply(honest: dict[str, Any], data: Data) -> Reply:
    """What `transport._send` makes of an answer."""
    return Reply(
        status=data.PickValueInList([200, 200, 200, 201, 302, 400, 401, 402, 403, 429, 500, 599]),
        headers=headers(data),
        json=transport._json_object(body(honest, data)),
    )


def quota_answers(answer: Reply) -> None:
    transport._send = lambda *args, **kwargs: answer


@cache
def discover() -> None:
    """Have the honest discovery document kept, so that the answers are asked for the rest."""
    honest = CaseInsensitiveDict({"Cache-Control": "max-age=86400"})
    quota_answers(Reply(status=200, headers=honest, json={"issuer": ISSUER}))
    discovery.metadata()


def token(data: Data) -> str:
    """A signed token with any header and claims, one with a changed part, or any text."""
    kind = data.ConsumeIntInRange(0, 3)
    if kind == 0:
        return str(data.ConsumeUnicode(4096))
    if kind == 1:
        parts = forge({"alg": "RS256", "kid": "k1"}, claims()).split(".")
        parts[data.ConsumeIntInRange(0, 2)] = data.ConsumeUnicode(1000)
        return ".".join(parts)
    header = near({"alg": "RS256", "kid": "k1", "typ": "JWT"}, data)
    if kind == 2:
        return forge(header, bytes(data.ConsumeBytes(4096)), b"unsigned")
    optional = {"email": "ada@example.com", "name": "Ada", "picture": ISSUER, "azp": CLIENT_ID}
    return forge(header, near(claims(nbf=NOW, email_verified=True, **optional), data))


def validate(data: Data) -> None:
    fuzzed = token(data)
    id_token.unverified_claims(fuzzed)
    id_token.validate(
        id_token.verify(fuzzed, KEYS),
        issuer=ISSUER,
        audience=CLIENT_ID,
        nonce=NONCE,
        access_token="quota_token_hush",
        now=NOW,
        leeway=60,
    )


def usable_keys(data: Data) -> None:
    honest = data.PickValueInList([jwk(), PRIVATE_JWK, jwk(d=PRIVATE_JWK["d"])])
    if data.ConsumeBool():
        honest = honest | {n: b64(data.ConsumeBytes(300)) for n in ("n", "e", "d") if n in honest}
    members = [near(honest, data) if data.ConsumeBool() else json_value(data) for _ in range(2)]
    for key in id_token.usable_keys({"keys": members}):
        with suppress(QuotaError):
            id_token.validate(
                id_token.verify(forge({"alg": "RS256"}, claims()), [key]),
                issuer=ISSUER,
                audience=CLIENT_ID,
                nonce=NONCE,
                access_token="quota_token_hush",
                now=NOW,
                leeway=60,
            )


def discovery_document(data: Data) -> None:
    paths = {
        f"{name}_endpoint": f"{ISSUER}/{name}" for name in ("token", "userinfo", "end_session")
    }
    quota_answers(reply({"issuer": ISSUER} | paths, data))
    discovery.forget()
    discovery.metadata()


def token_reply(data: Data) -> None:
    discover()
    quota_answers(reply(HONEST_TOKENS, data))
    if data.ConsumeBool():
        endpoints.refresh("quota_refresh_1")
    else:
        endpoints.exchange_code(code="c", redirect_uri="http://localhost/", code_verifier="v")


def reply_properties(data: Data) -> None:
    answer = reply(HONEST_API, data)
    assert answer.error_code.isascii()
    assert (answer.max_age or 0) >= 0 and (transport.retry_after(answer.headers) or 0) >= 0


def api_reply(data: Data) -> None:
    discover()
    quota_answers(reply(HONEST_API, data))
    ask: Callable[[], object] = data.PickValueInList(
        [
            lambda: wallet_api.fetch_balance("t"),
            lambda: wallet_api.fetch_packages(),
            lambda: endpoints.fetch_userinfo("t"),
            lambda: wallet_api.create_checkout(
                "t", package_id="p", success_url="s", cancel_url="c"
            ),
            lambda: endpoints.revoke("t", "refresh_token"),
            lambda: developers.save_app("sess_1", {}, client_id=None),
        ]
    )
    ask()


def callback(data: Data) -> None:
    """The callback view itself, with a sign-in that is waiting for it."""
    discover()
    quota_answers(reply({"error": "invalid_grant"}, data))
    fields = [f"state={STATE}"] if data.ConsumeBool() else []
    fields += [
        f"{data.PickValueInList(['state', 'code', 'error', 'iss', 'x'])}="
        f"{data.PickValueInList(WORDS[:-1]) if data.ConsumeBool() else ''}"
        for _ in range(data.ConsumeIntInRange(0, 5))
    ]
    query = "&".join(fields).encode("utf-8", "replace") + data.ConsumeBytes(500)
    request = RequestFactory().get(
        "/auth/quota/callback", headers={"host": "localhost"}, QUERY_STRING=query.decode("latin-1")
    )
    django_cache.clear()  # which remembers the state that was taken
    request.user = AnonymousUser()
    request.session = SessionStore()
    pending.save(request.session, PendingSignIn(redirect_uri="http://localhost/", state=STATE))
    response = sign_in.CallbackView.as_view()(request)
    assert response.status_code == 302
    assert response["Location"].startswith("/auth/quota/error?quota_error=")


TARGETS: dict[str, Callable[[Data], None]] = {
    target.__name__: target
    for target in (
        *(validate, usable_keys, discovery_document, token_reply, reply_properties, api_reply),
        callback,
    )
}


def main() -> None:
    _program, name, *options = sys.argv
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    logging.disable()
    target = TARGETS[name]

    def one_input(raw: bytes) -> None:
        with suppress(QuotaError):
            target(atheris.FuzzedDataProvider(raw))

    atheris.Setup([name, *options], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
