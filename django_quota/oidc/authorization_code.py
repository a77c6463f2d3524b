"""The end of the authorization code flow: from the callback's parameters to tokens and an identity.

RFC 6749 section 4.1, OpenID Connect Core 1.0 section 3.1. The functions take no request, session or
user.
"""

import logging
import time
from dataclasses import dataclass, field

from django.views.decorators.debug import sensitive_variables

from django_quota.conf import get_settings
from django_quota.exceptions import (
    InsufficientScope,
    QuotaError,
    RequestRefused,
    SignInFailed,
)
from django_quota.secret import Secret

from . import discovery, endpoints, id_token, wallet_api
from .endpoints import TokenReply
from .id_token import Identity

logger = logging.getLogger("django_quota.sign_in")

#: Characters. A longer code is refused without a request to Quota.
MAX_CODE_LENGTH = 4096


@dataclass(frozen=True, kw_only=True)
class AuthorizationResponse:
    """The callback's parameters (RFC 6749 section 4.1.2, RFC 9207 section 2).

    A missing parameter is None. A repeated one, which RFC 6749 section 3.1 forbids, is "".
    """

    code: str | None = field(repr=False)
    error: str | None
    iss: str | None


@sensitive_variables()
def exchange(
    response: AuthorizationResponse, *, redirect_uri: str, code_verifier: str
) -> TokenReply:
    """Exchange the code of `response` for tokens.

    Raises SignInFailed for the response of another provider, for an error response and for a
    response without a usable code; and what `endpoints.exchange_code` raises.
    """
    quota = discovery.metadata()
    if (quota.sends_iss or response.iss is not None) and response.iss != quota.issuer:
        # RFC 9207 section 2.4: a response of another provider (mix-up attack).
        raise SignInFailed("authorization_failed", "the callback's iss is not Quota's")
    if response.error is not None:
        raise _authorization_error(response.error)
    if not response.code or len(response.code) > MAX_CODE_LENGTH:
        raise SignInFailed("authorization_failed", "the callback has no usable code")
    return endpoints.exchange_code(
        code=Secret(response.code),
        redirect_uri=redirect_uri,
        code_verifier=Secret(code_verifier),
    )


def identity_of(reply: TokenReply, *, nonce: str) -> Identity:
    """Validate the id_token of `reply` and return its identity.

    Claims that QUOTA_SCOPES cover and the id_token lacks come from userinfo. Raises SignInFailed,
    and what `discovery.verified_claims` raises.
    """
    settings = get_settings()
    identity = id_token.validate(
        discovery.verified_claims(reply.id_token),
        issuer=discovery.metadata().issuer,
        audience=settings.client_id,
        nonce=nonce,
        access_token=reply.access_token,
        now=time.time(),
        leeway=settings.clock_skew,
    )
    wanted = {"email": ("email", "email_verified"), "profile": ("name",)}
    given = {claim for claim, value in identity.claims.items() if value is not None}
    if all(given.issuperset(wanted.get(scope, ())) for scope in settings.scopes):
        return identity
    return _with_userinfo(identity, reply.access_token)


@sensitive_variables()
def _with_userinfo(identity: Identity, access_token: str) -> Identity:
    """Add the claims of userinfo that the id_token lacks."""
    try:
        claims = endpoints.fetch_userinfo(access_token)
    except QuotaError as error:
        logger.warning("userinfo not read: %s", error)
        return identity
    if claims.get("sub") != identity.subject:
        # OpenID Connect Core 1.0 section 5.3.2 forbids its use.
        logger.warning("userinfo is about another sub and was not used")
        return identity
    signed = {claim: value for claim, value in identity.claims.items() if value is not None}
    # `email_verified` describes the address beside it, so both must come from the same source.
    if "email" not in signed:
        signed.pop("email_verified", None)
    elif claims.get("email") != signed["email"]:
        claims.pop("email_verified", None)
    return Identity.from_claims({**claims, **signed})


@sensitive_variables()
def wallet_owner(reply: TokenReply, *, nonce: str) -> str:
    """Return the `sub` of the owner of the wallet that the tokens spend from.

    Without the scope openid there is no id_token, and the balance names the owner (quota-protocol
    section 5). Raises SignInFailed if it does not, and what `wallet_api.fetch_balance` raises.
    """
    if reply.id_token is not None:
        return identity_of(reply, nonce=nonce).subject
    try:
        owner = wallet_api.fetch_balance(reply.access_token).user_id
    except RequestRefused:
        owner = ""
    if not owner or len(owner) > id_token.MAX_SUBJECT_LENGTH or not owner.isprintable():
        raise SignInFailed(
            "authorization_failed",
            "Quota does not say whose wallet this is; add openid to QUOTA_CONNECT_SCOPES",
        )
    return owner


def missing_scopes(reply: TokenReply, needs: str) -> InsufficientScope | None:
    """Return the error if Quota granted less than `needs`, scopes with spaces between them.

    RFC 6749 section 3.3. Without this error, the view that needs them would send the person to sign
    in again and again.
    """
    if not reply.scope or set(needs.split()) <= set(reply.scope.split()):
        return None
    return InsufficientScope(
        "Quota did not grant the scope that a view needs; check that it is among the app's "
        "allowed_scopes.",
        scope=needs,
    )


def _authorization_error(error: str) -> SignInFailed:
    """Return the exception for an error response (RFC 6749 section 4.1.2.1)."""
    if error == "access_denied":
        return SignInFailed("access_denied", "the person cancelled at Quota")
    if error == "invalid_scope":
        return SignInFailed(
            "invalid_scope",
            "a scope in QUOTA_SCOPES or QUOTA_CONNECT_SCOPES is not among the app's "
            "allowed_scopes; add it with PATCH /developers/apps/:id (manage.py quota_register_app "
            "--client-id ... --scope ...)",
        )
    if error in ("server_error", "temporarily_unavailable"):
        return SignInFailed("provider_unavailable", f"Quota answered {error}")
    # Other text is not logged: anyone can write it into this URL.
    return SignInFailed("authorization_failed", "Quota answered with another error")
