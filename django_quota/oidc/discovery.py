"""Quota's discovery document and signing keys, checked and cached.

OpenID Connect Discovery 1.0.
"""

import math
import os
import re
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import jwt

from django_quota.conf import get_settings, is_acceptable
from django_quota.conf.origins import origin
from django_quota.exceptions import (
    ConfigurationError,
    IssuerMismatch,
    ProviderUnavailable,
    SignInFailed,
)

from . import id_token
from .cached_document import CachedDocument
from .transport import get_public

_URL = re.compile(r"[!-~]{1,2000}")
_SCOPE = re.compile(r"[\w.:/-]{1,100}", re.ASCII)
_PLAIN_URL = re.compile(r"https?://[A-Za-z0-9.:/_~%\[\]-]{1,200}")

#: The recipe's endpoints, for those that a discovery document leaves out.
_RECIPE_PATHS = {
    "authorization_endpoint": "/oauth/authorize",
    "token_endpoint": "/oauth/token",
    "userinfo_endpoint": "/oauth/userinfo",
    "jwks_uri": "/.well-known/jwks.json",
}
#: A provider may have none of these. Guessing a path would send a token and the client secret to a
#: page that is not such an endpoint.
_OPTIONAL_ENDPOINTS = ("revocation_endpoint", "end_session_endpoint")


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """The used part of the discovery document (OpenID Connect Discovery 1.0 section 3)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    userinfo_endpoint: str
    jwks_uri: str
    #: None if Quota offers no revocation.
    revocation_endpoint: str | None = None
    end_session_endpoint: str | None = None
    #: True if the endpoint takes the client secret by HTTP Basic only (RFC 6749 section 2.3.1).
    token_by_basic: bool = False
    revocation_by_basic: bool = False
    #: True if Quota sends `iss` in the authorization response (RFC 9207).
    sends_iss: bool = False
    #: The scopes that an app may request; () if Quota does not list them.
    scopes_supported: tuple[str, ...] = ()


_metadata: CachedDocument[Metadata] = CachedDocument()
_keys: CachedDocument[list[jwt.PyJWK]] = CachedDocument()


def forget() -> None:
    """Drop the cached discovery document and keys. For tests, and after a fork."""
    _metadata.clear()
    _keys.clear()


os.register_at_fork(after_in_child=forget)


def metadata() -> Metadata:
    """Return Quota's discovery document, checked.

    Raises IssuerMismatch, ConfigurationError (an endpoint on a foreign origin),
    ProviderUnavailable.
    """
    settings = get_settings()
    return _metadata.get((settings.base_url, settings.issuer), _fetch_metadata)


def _fetch_metadata() -> tuple[Metadata, int | None]:
    reply = get_public(f"{get_settings().base_url}/.well-known/openid-configuration")
    return _checked_metadata(reply.json or {}), reply.max_age


def _checked_metadata(document: dict[str, Any]) -> Metadata:
    settings = get_settings()
    if "issuer" not in document:
        # For example a maintenance page: an outage, during which the cached document is used.
        raise ProviderUnavailable(
            "Quota served no discovery document; try again later, and check QUOTA_BASE_URL."
        )
    issuer = document["issuer"]
    if issuer not in (settings.base_url, settings.issuer) or not isinstance(issuer, str):
        raise IssuerMismatch(_issuer_advice(issuer))
    scopes = document.get("scopes_supported")
    token_methods = document.get("token_endpoint_auth_methods_supported")
    revocation_methods = document.get("revocation_endpoint_auth_methods_supported", token_methods)
    return Metadata(
        issuer=issuer,
        token_by_basic=_is_basic_only(token_methods),
        revocation_by_basic=_is_basic_only(revocation_methods),
        scopes_supported=tuple(
            scope
            for scope in (scopes if isinstance(scopes, list) else ())
            # quota_check shows them in a terminal, so control characters are not accepted.
            if isinstance(scope, str) and _SCOPE.fullmatch(scope)
        ),
        sends_iss=document.get("authorization_response_iss_parameter_supported") is True,
        **_checked_endpoints(document),
    )


def _checked_endpoints(document: dict[str, Any]) -> dict[str, Any]:
    endpoints: dict[str, Any] = {}
    for name in (*_RECIPE_PATHS, *_OPTIONAL_ENDPOINTS):
        url = document.get(name)
        if url is None and name in _RECIPE_PATHS:
            url = get_settings().base_url + _RECIPE_PATHS[name]
        # RFC 6749 sections 3.1 and 3.2 forbid a fragment: parameters after it would not be sent.
        if url is not None and (not is_trusted(url) or "#" in url):
            raise ConfigurationError(
                f"Discovery puts {name} on an origin that is neither QUOTA_BASE_URL's nor "
                "QUOTA_ISSUER's; it is not used. If it is Quota's, set one of these settings to it."
            )
        endpoints[name] = url
    return endpoints


def _is_basic_only(methods: object) -> bool:
    """True if `methods` (RFC 8414 section 2) allow HTTP Basic and not the recipe's method.

    Without a list the recipe's client_secret_post is used, although the RFC's default is Basic.
    """
    return (
        isinstance(methods, list)
        and "client_secret_basic" in methods
        and "client_secret_post" not in methods
    )


def _issuer_advice(issuer: object) -> str:
    # A developer pastes this line into a Python file, so it may contain nothing but a plain URL.
    if isinstance(issuer, str) and _PLAIN_URL.fullmatch(issuer) and is_acceptable(issuer):
        return (
            "Quota's discovery document names an issuer other than QUOTA_BASE_URL. If that "
            f'issuer is Quota, too, add this line to your settings: QUOTA_ISSUER = "{issuer}"'
        )
    return "Quota's discovery document names no usable issuer; check QUOTA_BASE_URL."


def origin_of(url: object) -> str:
    """Return the origin of a URL that came from the network, "" if it is not a usable URL.

    Only visible ASCII is allowed in a URL (RFC 3986 section 2). Different programs strip, drop or
    encode other characters, and would disagree about the origin.
    """
    try:
        return origin(url) if isinstance(url, str) and _URL.fullmatch(url) else ""
    except ValueError:
        return ""


def is_trusted(url: object) -> bool:
    """True if `url` is on the origin of QUOTA_BASE_URL or of QUOTA_ISSUER."""
    return origin_of(url) in get_settings().trusted_origins


def verified_claims(token: object) -> dict[str, Any]:
    """Return the claims of an id_token that one of Quota's keys has signed.

    If none of the known keys has, the keys are fetched once more. The signature decides, not the
    `kid`: a rotated key may have the same `kid`, or none (OpenID Connect Core 1.0 section 10.1).
    Raises what `metadata` raises, and SignInFailed if Quota has not signed `token`.
    """
    id_token.key_id(token)  # no keys are fetched for text that is not a JWT
    asked_at = time.monotonic()
    keys = published_keys()
    try:
        return id_token.verify(token, keys)
    except SignInFailed:
        return id_token.verify(token, published_keys(since=asked_at))


def published_keys(*, since: float = -math.inf) -> list[jwt.PyJWK]:
    """Return the usable keys that Quota publishes.

    Keys that were fetched before `since`, a time.monotonic(), are fetched once more, at most once
    in COOL_DOWN seconds. Raises what `metadata` raises.
    """
    uri = metadata().jwks_uri
    return _keys.get(uri, partial(_fetch_keys, uri), since=since)


def _fetch_keys(uri: str) -> tuple[list[jwt.PyJWK], int | None]:
    reply = get_public(uri)
    keys = id_token.usable_keys(reply.json or {})
    if not keys:
        raise ProviderUnavailable("Quota's key document holds no usable key; try again later.")
    return keys, reply.max_age
