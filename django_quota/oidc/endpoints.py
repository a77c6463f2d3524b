"""Quota's OAuth and OpenID Connect endpoints: the requests, and the meaning of the answers.

Functions that act for a user take the user's token as an argument; none looks one up.
"""

from dataclasses import dataclass, field
from typing import Any, TypeGuard
from urllib.parse import urlencode

from django.views.decorators.debug import sensitive_variables

from django_quota.conf import get_settings
from django_quota.exceptions import (
    ConfigurationError,
    ProviderUnavailable,
    QuotaError,
    ReauthenticationRequired,
    RefreshRefused,
    SignInFailed,
)
from django_quota.secret import Secret

from . import id_token
from .discovery import metadata
from .refusals import error_for
from .time_limit import within
from .transport import Reply, call_api, send_request

#: Seconds, for a reply without a usable `expires_in`: the recipe's "typically one hour".
DEFAULT_TOKEN_LIFETIME = 3600
#: Seconds.
MAX_TOKEN_LIFETIME = 30 * 86_400
#: Characters of a token that is sent in a header or a form.
MAX_BEARER_LENGTH = 16_384

#: Characters of an id_token in a redirect. With the cookies of a sign-out, the headers of the
#: response stay below 4096 bytes, nginx's buffer for them (proxy_buffer_size).
MAX_HINT_LENGTH = 2500

#: Errors about the client, not about the grant (RFC 6749 section 5.2): the token is still valid.
_CLIENT_REFUSED = ("invalid_client", "unauthorized_client")
#: Statuses that are not about the token: RFC 9110 sections 15.5.5 and 15.5.9, RFC 8470, RFC 6585.
_TRY_AGAIN = (404, 408, 425, 429)
#: Statuses of an error response: 400 and 401 in RFC 6749 section 5.2; some providers send 200 with
#: the same body.
_REFUSALS = (200, 400, 401)


@dataclass(frozen=True, kw_only=True)
class TokenReply:
    """A successful reply of the token endpoint (RFC 6749 section 5.1); `expires_in` in seconds."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    id_token: str | None = field(repr=False)
    expires_in: int
    scope: str | None


def authorization_url(
    *,
    redirect_uri: str,
    scopes: tuple[str, ...],
    state: str,
    nonce: str,
    code_challenge: str,
    extra: dict[str, str],
) -> str:
    """Return the URL at which a person signs in (OpenID Connect Core 1.0 section 3.1.2.1,
    RFC 7636).

    `extra` are further parameters. Raises what `metadata` raises, and ConfigurationError.
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


def end_session_url(*, id_token_hint: str, post_logout_redirect_uri: str) -> str | None:
    """Return the URL at which a person signs out of Quota, None if Quota has no such endpoint.

    OpenID Connect RP-Initiated Logout 1.0 section 2. A hint that is empty, or longer than
    MAX_HINT_LENGTH, is left out: then only the client id names the app. Raises what `metadata`
    raises, and ConfigurationError.
    """
    endpoint = metadata().end_session_endpoint
    if endpoint is None:
        return None
    client_id, _secrets = get_settings().client
    hint = {"id_token_hint": id_token_hint} if 0 < len(id_token_hint) <= MAX_HINT_LENGTH else {}
    query = hint | {"post_logout_redirect_uri": post_logout_redirect_uri, "client_id": client_id}
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"


@sensitive_variables()
def exchange_code(*, code: str, redirect_uri: str, code_verifier: str) -> TokenReply:
    """Exchange an authorization code for tokens (RFC 6749 section 4.1.3).

    Raises SignInFailed `token_exchange_failed` for an answer without usable tokens, as the recipe
    does; ProviderUnavailable if there is no answer; and what `metadata` raises.
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


def refresh(refresh_token: str) -> TokenReply:
    """Exchange a refresh token for new tokens (RFC 6749 section 6).

    Raises ReauthenticationRequired for `invalid_grant` and `invalid_token`. After every other
    error the refresh token may still be valid, so keep it: ConfigurationError if Quota refuses the
    client, RateLimited for a 429, RefreshRefused for another 4xx, ProviderUnavailable for the rest.
    """
    # One limit for discovery and the attempts with each client secret: the row's lease is as long.
    with within(get_settings().deadline):
        reply = _token_request(grant_type="refresh_token", refresh_token=refresh_token)
    tokens = _token_reply(reply)
    if tokens is None:
        raise _refresh_error(reply)
    return tokens


def _refresh_error(reply: Reply) -> QuotaError:
    status, code = reply.status, reply.error_code
    if status in _REFUSALS and code in ("invalid_grant", "invalid_token"):
        return ReauthenticationRequired(
            f"Quota no longer accepts the refresh token ({code}); let the user sign in again.",
            provider_code=code,
        )
    reason = _token_failure(reply)
    if code in _CLIENT_REFUSED:
        return ConfigurationError(reason)
    if status == 429:
        return error_for(status, code, reply.retry_after)
    if 400 <= status < 500 and status not in _TRY_AGAIN:
        return RefreshRefused(reason, status=status)
    return ProviderUnavailable(reason, status=status)


def revoke(token: str, token_type_hint: str) -> bool:
    """Revoke a token (RFC 7009). Return False, and send nothing, if Quota offers no revocation.

    `token_type_hint` is `access_token` or `refresh_token`. Raises ConfigurationError if Quota
    refuses the client, ProviderUnavailable for other failures, and what `metadata` raises.
    """
    known = metadata()
    if known.revocation_endpoint is None:
        return False
    reply = _client_request(
        known.revocation_endpoint,
        {"token": token, "token_type_hint": token_type_hint},
        by_basic=known.revocation_by_basic,
    )
    if reply.error_code in _CLIENT_REFUSED:
        raise ConfigurationError(_token_failure(reply))
    # RFC 7009 section 2.2: the status is 200 for invalid tokens, too, and the body has no meaning.
    if reply.status != 200:
        raise ProviderUnavailable(
            f"Quota did not revoke the token (HTTP {reply.status}); it will be tried again.",
            status=reply.status,
        )
    return True


@sensitive_variables()
def _token_request(**form: str) -> Reply:
    known = metadata()
    return _client_request(known.token_endpoint, form, by_basic=known.token_by_basic)


@sensitive_variables()
def _client_request(endpoint: str, form: dict[str, str], *, by_basic: bool) -> Reply:
    """POST `form` with the client's credentials, and with the next secret if one is refused.

    The secret is sent in the form, as in the recipe (client_secret_post), or by HTTP Basic to an
    endpoint that takes nothing else.
    """
    client_id, secrets = get_settings().client
    for secret in secrets:
        if by_basic:
            reply = send_request("POST", endpoint, form=form, basic=(client_id, secret))
        else:
            signed = form | {"client_id": client_id, "client_secret": secret}
            reply = send_request("POST", endpoint, form=signed)
        if reply.error_code != "invalid_client":
            break
    return reply


@sensitive_variables()
def _token_reply(reply: Reply) -> TokenReply | None:
    """Return the tokens of a successful reply, None for another reply."""
    body = reply.json or {}
    access_token = _token(body.get("access_token"))
    if not reply.ok or access_token is None:
        return None
    # RFC 6749 section 5.1 requires token_type and ignores its case. The recipe does not check it,
    # so a reply without one is accepted.
    if str(body.get("token_type", "Bearer")).lower() != "bearer":
        return None
    scope = body.get("scope")
    return TokenReply(
        access_token=access_token,
        refresh_token=_token(body.get("refresh_token")),
        id_token=_token(body.get("id_token"), id_token.MAX_TOKEN_LENGTH),
        expires_in=_lifetime(body.get("expires_in")),
        scope=scope if _is_scope(scope) else None,
    )


def _is_scope(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and value.isprintable() and len(value) <= 1000


@sensitive_variables()
def _token(value: object, longest: int = MAX_BEARER_LENGTH) -> Secret | None:
    """Return `value` if it is a token of visible ASCII (RFC 6750 section 2.1), else None.

    Other characters could end the Authorization header and start another one.
    """
    if not isinstance(value, str) or not 0 < len(value) <= longest:
        return None
    return Secret(value) if value.isascii() and value.isprintable() and " " not in value else None


def _lifetime(value: object) -> int:
    # A wrong number must not make us refuse the tokens. If it is too large, a call is answered 401,
    # and that renews the token.
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


def fetch_userinfo(access_token: str) -> dict[str, Any]:
    """Return the claims of the userinfo endpoint (OpenID Connect Core 1.0 section 5.3), unchecked.

    Raises what `call_api` and `metadata` raise.
    """
    return call_api("GET", metadata().userinfo_endpoint, bearer=access_token)
