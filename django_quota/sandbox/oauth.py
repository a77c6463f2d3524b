"""The OAuth endpoints that apps call: discovery, keys, token, userinfo and revocation."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from oauth2_provider.models import get_access_token_model, get_refresh_token_model
from oauth2_provider.views import RevokeTokenView, TokenView
from oauthlib.oauth2.rfc6749 import errors

from .api import ApiError, json_view, require_token
from .models import SigningKey
from .scopes import SCOPES
from .state import state
from .tokens import checksum
from .validators import CLAIM_SCOPES, get_identity_claims
from .webhook_delivery import notify

__all__ = ["QuotaTokenView", "RevokeView", "discovery", "jwks", "userinfo"]


@json_view("GET", "HEAD")
def discovery(request: HttpRequest) -> JsonResponse:
    """Return the discovery document (RFC 8414), with the fields that Quota documents."""
    origin = state.origin
    document = {
        "issuer": state.issuer,
        "authorization_endpoint": f"{origin}/oauth/authorize",
        "token_endpoint": f"{origin}/oauth/token",
        "userinfo_endpoint": f"{origin}/oauth/userinfo",
        "jwks_uri": f"{origin}/.well-known/jwks.json",
        "revocation_endpoint": f"{origin}/oauth/revoke",
        "end_session_endpoint": f"{origin}/oauth/end_session",
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "token_endpoint_auth_methods_supported": ["client_secret_post", "none"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "scopes_supported": list(SCOPES),
        "claims_supported": [
            "sub",
            "iss",
            "aud",
            "exp",
            "iat",
            "auth_time",
            "nonce",
            "email",
            "email_verified",
            "name",
            "picture",
        ],
        "code_challenge_methods_supported": ["S256", "plain"],
        "authorization_response_iss_parameter_supported": True,
    }
    return _public_document(document)


@json_view("GET", "HEAD")
def jwks(request: HttpRequest) -> JsonResponse:
    """Return every public signing key, newest first."""
    keys = [
        {"alg": "RS256", "use": "sig", "kid": key.kid} | key.jwk.export_public(as_dict=True)
        for key in SigningKey.objects.all()
    ]
    return _public_document({"keys": keys})


def _public_document(document: dict[str, Any]) -> JsonResponse:
    return JsonResponse(
        document,
        headers={"Cache-Control": "public, max-age=3600", "Access-Control-Allow-Origin": "*"},
    )


#: The status and code that Quota documents, by error code of RFC 6749.
QUOTA_ERRORS = {
    "invalid_grant": (401, "invalid_token"),
    "invalid_client": (401, "invalid_client"),
}


class QuotaTokenView(TokenView):  # type: ignore[misc]  # the library is untyped
    """The token endpoint: exchanges codes and refresh tokens for tokens."""

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Issue tokens in a transaction.

        The database runs one such transaction at a time. Otherwise two simultaneous requests with
        the same refresh token could both succeed.
        """
        if request.POST.get("grant_type") not in ("authorization_code", "refresh_token"):
            response = HttpResponse(
                errors.UnsupportedGrantTypeError().json,
                status=400,
                headers={"Cache-Control": "no-store"},
            )
        else:
            with transaction.atomic():
                response = self.authorization_flow_token_response(request)
        response.headers["Content-Type"] = "application/json"
        if response.status_code == 200:
            _notify_connected(request, response)
            return _apply_reply_knobs(request, response)
        if state.knobs.token_error_shape == "quota":  # noqa: S105
            response = _to_quota_error(response)
        return _set_challenge(request, response)


def _set_challenge(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """Set the WWW-Authenticate header as RFC 6749 section 5.2 requires.

    The library sets a Bearer challenge, which makes no sense where tokens are issued. Some clients
    report it instead of the error. Only clients that sent Basic credentials get a challenge.
    """
    response.headers.pop("WWW-Authenticate", None)
    scheme = request.headers.get("Authorization", "").partition(" ")[0].lower()
    if response.status_code == 401 and scheme == "basic":
        response.headers["WWW-Authenticate"] = 'Basic realm="Quota"'
    return response


def _notify_connected(request: HttpRequest, response: HttpResponse) -> None:
    if request.POST["grant_type"] == "authorization_code":
        value = json.loads(response.content)["access_token"]
        token = (
            get_access_token_model()
            .objects.select_related("user", "application__user")
            .get(token_checksum=checksum(value))
        )
        now = datetime.now(UTC).isoformat()
        notify("user.connected", token.user, token.application.user, connected_at=now)


def _apply_reply_knobs(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    reply = json.loads(response.content)
    if request.POST["grant_type"] == "refresh_token" and not state.knobs.rotate_refresh_tokens:
        reply.pop("refresh_token", None)
    if state.knobs.omit_id_token:
        reply.pop("id_token", None)
    response.content = json.dumps(reply).encode()
    return response


def _to_quota_error(response: HttpResponse) -> HttpResponse:
    body = json.loads(response.content)
    status, code = QUOTA_ERRORS.get(body["error"], (400, "bad_request"))
    message = body.get("error_description") or body["error"].replace("_", " ")
    return ApiError(status, code, message).response()


class RevokeView(RevokeTokenView):  # type: ignore[misc]  # the library is untyped
    """The revocation endpoint (RFC 7009)."""

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Revoke a token of the authenticated client. An unknown token is not an error."""
        refresh_token = (
            get_refresh_token_model()
            .objects.select_related("user", "application")
            .filter(token=request.POST.get("token", ""), revoked=None)
            .first()
        )
        with transaction.atomic():
            response: HttpResponse = super().post(request, *args, **kwargs)
        if refresh_token is not None and response.status_code == 200:
            now = datetime.now(UTC).isoformat()
            user, application = refresh_token.user, refresh_token.application
            notify("user.disconnected", user, application.user, disconnected_at=now)
        return _set_challenge(request, response)


@json_view("GET", "POST")
def userinfo(request: HttpRequest) -> JsonResponse:
    """Return the claims that the token's scopes allow, and the balance of the wallet.

    Without a scope for the wallet, ``balance`` is null.
    """
    token = require_token(request, "openid")
    scopes = set(token.scope.split())
    claims = {
        name: value
        for name, value in get_identity_claims(token.user).items()
        if CLAIM_SCOPES[name] in scopes
    }
    has_wallet = bool(scopes & {"credits.read", "credits.spend"})
    claims["balance"] = token.user.balance if has_wallet else None
    return JsonResponse(claims, headers={"Cache-Control": "no-store"})
