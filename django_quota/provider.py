"""Quota's endpoints for tokens, identity and wallet: what is asked, and what an answer means.

Functions that act for a user take that user's token as an argument; none looks one up.
"""

from dataclasses import dataclass, field
from typing import Any, TypeGuard
from urllib.parse import urlencode

from django.views.decorators.debug import sensitive_variables

from . import id_token
from .conf import get_settings
from .discovery import is_trusted, metadata, origin_of, public
from .exceptions import (
    ConfigurationError,
    ProviderUnavailable,
    RateLimited,
    ReauthenticationRequired,
    SignInFailed,
)
from .money import whole_number
from .transport import Reply, call, exchange, retry_after, within

__all__ = [
    "BalanceReply",
    "Package",
    "TokenReply",
    "authorization_url",
    "balance",
    "create_checkout",
    "end_session_url",
    "exchange_code",
    "packages",
    "refresh",
    "revoke",
    "save_app",
    "userinfo",
]

#: The recipe's "typically one hour", where a reply gives no usable `expires_in`.
DEFAULT_TOKEN_LIFETIME = 3600
MAX_TOKEN_LIFETIME = 30 * 86_400

#: What fits into a redirect beside the endpoint; Django's limit for all of it is 16384.
MAX_HINT_LENGTH = 8192

#: RFC 6749 section 5.2: not about the grant, so no token is lost by it.
_CLIENT_REFUSED = ("invalid_client", "unauthorized_client")


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
    section 2), None if discovery names no such endpoint, or the hint is too long for a URL. Raises
    what `metadata` raises."""
    endpoint = metadata().end_session_endpoint
    if endpoint is None or len(id_token_hint) > MAX_HINT_LENGTH:
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
    ConfigurationError where Quota refuses the client; RateLimited for a 429, ProviderUnavailable
    for all else, and then the token is to be kept.
    """
    # One bound for all of it, discovery and each client secret: the lease on the row is as long.
    # Not the caller's, who may have little time left: an answer that is not read is a token lost.
    with within(get_settings().deadline, nested=False):
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
    if reply.error_code in _CLIENT_REFUSED:
        raise ConfigurationError(_token_failure(reply))
    if reply.status == 429:
        raise RateLimited(_token_failure(reply), retry_after=retry_after(reply.headers))
    raise ProviderUnavailable(_token_failure(reply), status=reply.status)


@sensitive_variables()
def revoke(token: str, token_type_hint: str) -> None:
    """Revoke a token (RFC 7009). Raises what `call` raises, ConfigurationError, IssuerMismatch."""
    endpoint = metadata().revocation_endpoint
    reply = _client_request(endpoint, {"token": token, "token_type_hint": token_type_hint})
    if reply.error_code in _CLIENT_REFUSED:
        raise ConfigurationError(_token_failure(reply))
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
    return int(value) if 1 <= value <= MAX_TOKEN_LIFETIME else DEFAULT_TOKEN_LIFETIME


def _token_failure(reply: Reply) -> str:
    if reply.error_code in _CLIENT_REFUSED:
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
    credits = whole_number(body.get("balance"))
    user_id = body.get("user_id")
    is_known = credits is not None or body.get("balance") is None
    if body.get("wallet", "oauth_user") != "oauth_user" or not is_known:
        raise ProviderUnavailable("Quota's balance is not that of a user's wallet.", status=200)
    return BalanceReply(credits=credits, user_id=user_id if isinstance(user_id, str) else "")


def packages() -> tuple[Package, ...]:
    """The credit packages on offer (quota-protocol section 12). Raises ProviderUnavailable."""
    body = public(f"{get_settings().base_url}/v1/packages").json or {}
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
        and _words(offer.get("id"))
        and type(offer.get("price_cents")) is int
    )


def _words(value: object) -> str:
    return value[:100] if isinstance(value, str) and value.isprintable() else ""


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
    if isinstance(url, str) and (origin_of(url).startswith("https://") or is_trusted(url)):
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
