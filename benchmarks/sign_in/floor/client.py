"""The requests to the provider, and the validation of its answer."""

from __future__ import annotations

import secrets
from functools import cache
from typing import Any

import jwt
import requests

from benchmarks.sign_in.project import CLIENT_ID, CLIENT_SECRET
from benchmarks.sign_in.settings import CONTESTANT

ORIGIN = CONTESTANT["origin"]
TIMEOUT = (3, 10)

http = requests.Session()


def fetch(url: str) -> dict[str, Any]:
    reply = http.get(url, timeout=TIMEOUT, allow_redirects=False)
    reply.raise_for_status()
    document: dict[str, Any] = reply.json()
    return document


@cache
def metadata() -> dict[str, Any]:
    found = fetch(f"{ORIGIN}/.well-known/openid-configuration")
    if found["issuer"] != ORIGIN:
        raise ValueError("another issuer")
    return found


@cache
def keys() -> dict[str | None, Any]:
    found = jwt.PyJWKSet.from_dict(fetch(metadata()["jwks_uri"]))
    return {key.key_id: key.key for key in found.keys}


def exchange(code: str, *, redirect_uri: str, code_verifier: str) -> dict[str, Any]:
    """The tokens for a code (RFC 6749 section 4.1.3)."""
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect_uri,
        "code_verifier": code_verifier,
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
    }
    return ask_for_tokens(form)


def refresh(refresh_token: str) -> dict[str, Any]:
    """The next tokens (RFC 6749 section 6)."""
    form = {
        "grant_type": "refresh_token",
        "refresh_token": refresh_token,
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
    }
    return ask_for_tokens(form)


def ask_for_tokens(form: dict[str, str]) -> dict[str, Any]:
    reply = http.post(
        metadata()["token_endpoint"], data=form, timeout=TIMEOUT, allow_redirects=False
    )
    reply.raise_for_status()
    tokens: dict[str, Any] = reply.json()
    return tokens


def validate(id_token: str, *, nonce: str) -> dict[str, Any]:
    """Its claims (OpenID Connect Core 1.0 section 3.1.3.7). Raises if it is not good."""
    kid = jwt.get_unverified_header(id_token).get("kid")
    if kid not in keys():
        keys.cache_clear()  # the provider may have a new key
    claims: dict[str, Any] = jwt.decode(
        id_token,
        keys()[kid],
        algorithms=["RS256"],
        audience=CLIENT_ID,
        issuer=metadata()["issuer"],
        leeway=60,
        options={"require": ["iss", "sub", "aud", "exp", "iat", "nonce"]},
    )
    if not secrets.compare_digest(claims["nonce"], nonce):
        raise ValueError("another nonce")
    return claims
