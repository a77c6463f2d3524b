"""The only module that speaks to Quota: what is asked for, and what an answer means.

Discovery and signing keys are kept in this process's memory, never in a shared cache: others
could write to that, and these two decide who signs in and where the client secret is sent.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Generic, TypeGuard, TypeVar
from urllib.parse import urlencode

import jwt
from django.views.decorators.debug import sensitive_variables

from . import id_token
from .conf import get_settings, is_acceptable, origin
from .exceptions import (
    ConfigurationError,
    IssuerMismatch,
    ProviderUnavailable,
    ReauthenticationRequired,
    SignInFailed,
)
from .transport import Reply, call, exchange, within

__all__ = [
    "BalanceReply",
    "Metadata",
    "Package",
    "TokenReply",
    "authorization_url",
    "balance",
    "create_checkout",
    "end_session_url",
    "exchange_code",
    "forget",
    "metadata",
    "packages",
    "refresh",
    "revoke",
    "save_app",
    "signing_keys",
    "userinfo",
]

T = TypeVar("T")

#: Bounds, in seconds, on how long a Cache-Control header may make us keep a document.
MIN_AGE, DEFAULT_AGE, MAX_AGE = 300, 3600, 86_400
#: Seconds between two fetches of the keys for the sake of an unknown `kid`, and after a failure
#: of a document that we still have: an attacker must not be able to make us hammer Quota.
COOL_DOWN = 30
#: The recipe's "typically one hour", where a reply gives no usable `expires_in`.
DEFAULT_TOKEN_LIFETIME = 3600
MAX_TOKEN_LIFETIME = 30 * 86_400

_PLAIN_URL = re.compile(r"https?://[A-Za-z0-9.:/_~%\[\]-]{1,200}")

#: Endpoints as the recipe has them, for what a discovery document leaves out.
_RECIPE_PATHS = {
    "authorization_endpoint": "/oauth/authorize",
    "token_endpoint": "/oauth/token",
    "userinfo_endpoint": "/oauth/userinfo",
    "jwks_uri": "/.well-known/jwks.json",
    "revocation_endpoint": "/oauth/revoke",
}


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What of the discovery document is used (OpenID Connect Discovery 1.0 section 3)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    userinfo_endpoint: str
    jwks_uri: str
    revocation_endpoint: str
    end_session_endpoint: str | None = None
    #: RFC 9207: does Quota name itself in the authorization response?
    sends_iss: bool = False


@dataclass(frozen=True, kw_only=True)
class TokenReply:
    """A usable answer of the token endpoint (RFC 6749 section 5.1). `expires_in` is in seconds."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    id_token: str | None = field(repr=False)
    expires_in: int
    scope: str | None


@dataclass(frozen=True, kw_only=True)
class BalanceReply:
    """`GET /v1/balance` for a user's token; `credits` is None where no wallet is linked."""

    credits: int | None
    user_id: str


@dataclass(frozen=True, kw_only=True)
class Package:
    """One offer of `GET /v1/packages`; the price is in US cents."""

    id: str
    name: str
    price_cents: int
    balance_display: str


class _Kept(Generic[T]):
    """A document of Quota's in this process's memory, fetched by one thread at a time."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: tuple[object, T] | None = None
        self._fresh_until = 0.0
        self._next_fetch = 0.0
        self._failed_at = 0.0

    def get(
        self,
        key: object,
        fetch: Callable[[], tuple[T, int | None]],
        *,
        good_enough: Callable[[T], bool] = lambda value: True,
    ) -> T:
        """The kept value if it is fresh and good enough, else the one that `fetch` brings.

        `fetch` gives the value and its max-age in seconds. When it fails, an old value goes on
        serving: keys and endpoints outlive an outage. A failure itself is never kept; only those
        who were waiting for that very fetch share it, rather than time out one after the other.
        """
        asked_at = time.monotonic()
        with self._lock:
            now = time.monotonic()
            old = self._kept[1] if self._kept and self._kept[0] == key else None
            if old is not None:
                wanted = now >= self._fresh_until or not good_enough(old)
                if not wanted or now < self._next_fetch:
                    return old
                self._next_fetch = now + COOL_DOWN
            elif self._failed_at > asked_at:
                raise ProviderUnavailable("Quota cannot be reached; try again later.")
            try:
                value, max_age = fetch()
            except ProviderUnavailable:
                self._failed_at = time.monotonic()
                if old is None:
                    raise
                return old
            self._kept = (key, value)
            age = DEFAULT_AGE if max_age is None else max_age
            self._fresh_until = now + min(max(age, MIN_AGE), MAX_AGE)
            return value

    def clear(self) -> None:
        with self._lock:
            self._kept = None
            self._next_fetch = 0.0


_metadata: _Kept[Metadata] = _Kept()
_keys: _Kept[list[jwt.PyJWK]] = _Kept()


def forget() -> None:
    """Drop the kept discovery document and keys, as a new process would start. For tests."""
    _metadata.clear()
    _keys.clear()


def metadata() -> Metadata:
    """Quota's discovery document, checked.

    Raises IssuerMismatch, ConfigurationError (an endpoint on a foreign origin),
    ProviderUnavailable.
    """
    settings = get_settings()

    def fetch() -> tuple[Metadata, int | None]:
        reply = _public(f"{settings.base_url}/.well-known/openid-configuration")
        return _checked_metadata(reply.json or {}), reply.max_age

    return _metadata.get((settings.base_url, settings.issuer), fetch)


def _checked_metadata(document: dict[str, Any]) -> Metadata:
    settings = get_settings()
    issuer = document.get("issuer")
    if issuer not in (settings.base_url, settings.issuer) or not isinstance(issuer, str):
        raise IssuerMismatch(_issuer_advice(issuer))
    endpoints: dict[str, Any] = {}
    for name in (*_RECIPE_PATHS, "end_session_endpoint"):
        url = document.get(name)
        if url is None and name in _RECIPE_PATHS:
            url = settings.base_url + _RECIPE_PATHS[name]
        if url is not None and not _is_trusted(url):
            raise ConfigurationError(
                f"Discovery puts {name} on an origin that is neither QUOTA_BASE_URL's nor "
                "QUOTA_ISSUER's; it is not used. Set one of the two to it if it is Quota's."
            )
        endpoints[name] = url
    return Metadata(
        issuer=issuer,
        sends_iss=document.get("authorization_response_iss_parameter_supported") is True,
        **endpoints,
    )


def _issuer_advice(issuer: object) -> str:
    # The line will be pasted into a Python file: nothing but a plain URL may stand in it.
    if isinstance(issuer, str) and _PLAIN_URL.fullmatch(issuer) and is_acceptable(issuer):
        return (
            "Quota's discovery document names an issuer other than QUOTA_BASE_URL. If that is "
            f'Quota too, add this line to your settings: QUOTA_ISSUER = "{issuer}"'
        )
    return "Quota's discovery document names no usable issuer; check QUOTA_BASE_URL."


def _origin_of(url: object) -> str:
    """Where a URL that came from the network leads, "" if nowhere."""
    try:
        return origin(url) if isinstance(url, str) else ""
    except ValueError:
        return ""


def _is_trusted(url: object) -> bool:
    return _origin_of(url) in get_settings().trusted_origins


def _public(url: str) -> Reply:
    """A document that anybody may read; whoever answers otherwise is not Quota, or not well."""
    reply = exchange("GET", url)
    if not reply.ok:
        raise ProviderUnavailable(
            f"Quota gave no usable answer (HTTP {reply.status}); try again later, and check "
            "QUOTA_BASE_URL.",
            status=reply.status,
        )
    return reply


def signing_keys(kid: str | None) -> list[jwt.PyJWK]:
    """Quota's keys for id_tokens; for a `kid` not among them they are fetched once more.

    Raises what `metadata` raises.
    """
    uri = metadata().jwks_uri

    def fetch() -> tuple[list[jwt.PyJWK], int | None]:
        reply = _public(uri)
        keys = id_token.usable_keys(reply.json or {})
        if not keys:
            raise ProviderUnavailable("Quota's key document holds no usable key; try again later.")
        return keys, reply.max_age

    def has_kid(keys: list[jwt.PyJWK]) -> bool:
        return kid is None or any(key.key_id == kid for key in keys)

    return _keys.get(uri, fetch, good_enough=has_kid)


def authorization_url(
    *,
    redirect_uri: str,
    scopes: tuple[str, ...],
    state: str,
    nonce: str,
    code_challenge: str,
    extra: dict[str, str],
) -> str:
    """Where the browser is sent to sign in (OpenID Connect Core 1.0 section 3.1.2.1, RFC 7636).

    Raises what `metadata` raises.
    """
    client_id, _secrets = get_settings().client
    endpoint = metadata().authorization_endpoint
    query = urlencode(
        extra
        | {
            "response_type": "code",
            "client_id": client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": code_challenge,
            "code_challenge_method": "S256",
        }
    )
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{query}"


@sensitive_variables()
def end_session_url(*, id_token_hint: str, post_logout_redirect_uri: str) -> str | None:
    """Where the browser is sent to sign out of Quota (OpenID Connect RP-Initiated Logout 1.0
    section 2), None if discovery names no such endpoint. Raises what `metadata` raises."""
    endpoint = metadata().end_session_endpoint
    if endpoint is None:
        return None
    query = {"id_token_hint": id_token_hint, "post_logout_redirect_uri": post_logout_redirect_uri}
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"


@sensitive_variables()
def exchange_code(*, code: str, redirect_uri: str, code_verifier: str) -> TokenReply:
    """Exchange an authorization code (RFC 6749 section 4.1.3).

    Raises SignInFailed `token_exchange_failed` for every answer but a usable one, as the recipe
    does, ProviderUnavailable when there is no answer.
    """
    with within(get_settings().deadline):
        reply = _token_request(
            grant_type="authorization_code",
            code=code,
            redirect_uri=redirect_uri,
            code_verifier=code_verifier,
        )
    tokens = _token_reply(reply)
    if tokens is None:
        raise SignInFailed("token_exchange_failed", _token_failure(reply))
    return tokens


@sensitive_variables()
def refresh(refresh_token: str) -> TokenReply:
    """Spend a refresh token (RFC 6749 section 6).

    Raises ReauthenticationRequired only for `invalid_grant` and `invalid_token`;
    ConfigurationError where Quota refuses the client; ProviderUnavailable for all else, and then
    the token is to be kept.
    """
    # One bound for all of it, discovery and each client secret: the lease on the row is as long.
    with within(get_settings().deadline):
        reply = _token_request(grant_type="refresh_token", refresh_token=refresh_token)
    tokens = _token_reply(reply)
    if tokens is not None:
        return tokens
    if reply.status in (400, 401) and reply.error_code in ("invalid_grant", "invalid_token"):
        raise ReauthenticationRequired(
            f"Quota no longer accepts the refresh token ({reply.error_code}); let the user sign "
            "in again.",
            provider_code=reply.error_code,
        )
    if reply.error_code in ("invalid_client", "unauthorized_client"):
        raise ConfigurationError(_token_failure(reply))
    raise ProviderUnavailable(_token_failure(reply), status=reply.status)


@sensitive_variables()
def revoke(token: str, token_type_hint: str) -> None:
    """Revoke a token (RFC 7009). Raises what `call` raises, ConfigurationError, IssuerMismatch."""
    endpoint = metadata().revocation_endpoint
    reply = _client_request(endpoint, {"token": token, "token_type_hint": token_type_hint})
    # RFC 7009 section 2.2: 200 whatever the token was; the body is of no interest.
    if reply.status != 200:
        raise ProviderUnavailable(
            f"Quota did not revoke the token (HTTP {reply.status}); it will be tried again.",
            status=reply.status,
        )


@sensitive_variables()
def _token_request(**form: str) -> Reply:
    return _client_request(metadata().token_endpoint, form)


@sensitive_variables()
def _client_request(endpoint: str, form: dict[str, str]) -> Reply:
    """POST as the client (client_secret_post), with each secret while one is being rotated."""
    client_id, secrets = get_settings().client
    for secret in secrets:
        reply = exchange(
            "POST", endpoint, form=form | {"client_id": client_id, "client_secret": secret}
        )
        if reply.error_code != "invalid_client":
            break
    return reply


@sensitive_variables()
def _token_reply(reply: Reply) -> TokenReply | None:
    """The tokens of a successful reply, None for any other reply."""
    body = reply.json or {}
    access_token = _token(body.get("access_token"))
    if not reply.ok or access_token is None:
        return None
    # RFC 6749 section 5.1: required, and compared without regard to case; the recipe ignores it.
    if str(body.get("token_type", "Bearer")).lower() != "bearer":
        return None
    scope = body.get("scope")
    return TokenReply(
        access_token=access_token,
        refresh_token=_token(body.get("refresh_token")),
        id_token=_token(body.get("id_token")),
        expires_in=_lifetime(body.get("expires_in")),
        scope=scope if _is_scope(scope) else None,
    )


def _is_scope(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and value.isprintable() and len(value) <= 1000


@sensitive_variables()
def _token(value: object) -> str | None:
    """A token as RFC 6750 section 2.1 has it: visible ASCII, so that it cannot split a header."""
    if not isinstance(value, str) or not 0 < len(value) <= id_token.MAX_TOKEN_LENGTH:
        return None
    return value if value.isascii() and value.isprintable() and " " not in value else None


def _lifetime(value: object) -> int:
    # A wrong number here must not cost the tokens that came with it: too long ends in a 401,
    # which renews the token.
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return DEFAULT_TOKEN_LIFETIME
    return int(value) if 0 < value <= MAX_TOKEN_LIFETIME else DEFAULT_TOKEN_LIFETIME


def _token_failure(reply: Reply) -> str:
    if reply.error_code in ("invalid_client", "unauthorized_client"):
        return (
            f"Quota refused the client ({reply.error_code}): check QUOTA_CLIENT_ID and "
            "QUOTA_CLIENT_SECRET."
        )
    if reply.error_code:
        return f"The token endpoint answered HTTP {reply.status} {reply.error_code}."
    return f"The token endpoint gave no usable tokens (HTTP {reply.status})."


@sensitive_variables()
def userinfo(access_token: str) -> dict[str, Any]:
    """The claims at the userinfo endpoint (OpenID Connect Core 1.0 section 5.3), unchecked.

    Raises what `call` raises.
    """
    return call("GET", metadata().userinfo_endpoint, bearer=access_token).json or {}


@sensitive_variables()
def balance(access_token: str) -> BalanceReply:
    """The wallet behind a user's token (quota-protocol section 10).

    Raises what `call` raises; ProviderUnavailable, too, if the answer is for a developer's wallet.
    """
    url = f"{get_settings().base_url}/v1/balance"
    body = call("GET", url, bearer=access_token).json or {}
    credits = body.get("balance")
    user_id = body.get("user_id")
    is_number = isinstance(credits, int) and not isinstance(credits, bool)
    if body.get("wallet", "oauth_user") != "oauth_user" or not (is_number or credits is None):
        raise ProviderUnavailable("Quota's balance is not that of a user's wallet.", status=200)
    return BalanceReply(credits=credits, user_id=user_id if isinstance(user_id, str) else "")


def packages() -> tuple[Package, ...]:
    """The credit packages on offer (quota-protocol section 12). Raises ProviderUnavailable."""
    body = _public(f"{get_settings().base_url}/v1/packages").json or {}
    offers = body.get("packages")
    return tuple(
        Package(
            id=offer["id"],
            name=_words(offer.get("name")),
            price_cents=offer["price_cents"],
            balance_display=_words(offer.get("balance_display")),
        )
        for offer in (offers if isinstance(offers, list) else [])
        if isinstance(offer, dict)
        and isinstance(offer.get("id"), str)
        and type(offer.get("price_cents")) is int
    )


def _words(value: object) -> str:
    return value[:100] if isinstance(value, str) else ""


@sensitive_variables()
def create_checkout(
    access_token: str, *, package_id: str, success_url: str, cancel_url: str
) -> str:
    """Start a purchase; the URL of the payment page. Raises what `call` raises."""
    settings = get_settings()
    body = (
        call(
            "POST",
            f"{settings.base_url}/api/payments/checkout",
            bearer=access_token,
            json_body={
                "package_id": package_id,
                "success_url": success_url,
                "cancel_url": cancel_url,
            },
        ).json
        or {}
    )
    # The field's name is not documented (quota-protocol section 12): both plausible ones.
    url = body.get("checkout_url") or body.get("url")
    if isinstance(url, str) and (_origin_of(url).startswith("https://") or _is_trusted(url)):
        return url
    raise ProviderUnavailable("Quota named no payment page; try again later.", status=200)


@sensitive_variables()
def save_app(session_token: str, app: dict[str, Any], *, client_id: str | None) -> dict[str, Any]:
    """Register an OAuth app, or change the one with `client_id`; Quota's description of it.

    `session_token` is a developer's `sess_...` (quota-protocol section 3). Raises what `call`
    raises.
    """
    url = f"{get_settings().base_url}/developers/apps" + (f"/{client_id}" if client_id else "")
    reply = call("PATCH" if client_id else "POST", url, bearer=session_token, json_body=app)
    return reply.json or {}
