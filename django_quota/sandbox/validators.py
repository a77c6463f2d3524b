"""What Quota decides differently from django-oauth-toolkit's defaults."""

from __future__ import annotations

import base64
import hashlib
import time
from typing import Any

from django.http import HttpRequest
from django.utils import timezone
from oauth2_provider.models import get_access_token_model, get_refresh_token_model
from oauth2_provider.oauth2_backends import OAuthLibCore
from oauth2_provider.oauth2_validators import OAuth2Validator
from oauth2_provider.settings import oauth2_settings
from oauthlib.oauth2.rfc6749.errors import InvalidGrantError

from .models import User
from .signing import find_id_token, override_claims
from .state import state
from .tokens import checksum

__all__ = ["CLAIM_SCOPES", "QuotaOAuthLibCore", "QuotaValidator", "identity_claims"]

CLAIM_SCOPES = {
    "sub": "openid",
    "name": "profile",
    "picture": "profile",
    "email": "email",
    "email_verified": "email",
}
"""Claim to the scope that gives it."""


def identity_claims(user: User) -> dict[str, Any]:
    """Return all identity claims this person has, before scopes are looked at."""
    claims: dict[str, Any] = {"sub": str(user.pk)}
    if user.name:
        claims["name"] = user.name
    if user.picture_path:
        claims["picture"] = f"{state.origin}{user.picture_path}"
    return claims | {"email": user.email, "email_verified": user.email_verified}


class QuotaOAuthLibCore(OAuthLibCore):  # type: ignore[misc]  # the library is untyped
    """Hands oauthlib a query string it can always read."""

    def _get_escaped_full_path(self, request: HttpRequest) -> str:
        # oauthlib raises a bare ValueError for "%zz"; Django has already decoded the query, so
        # encoding it again is well-formed by construction.
        return f"{request.path}?{request.GET.urlencode()}"


class QuotaValidator(OAuth2Validator):  # type: ignore[misc]  # the library is untyped
    """Claims, strictness and the knobs."""

    oidc_claim_scope = CLAIM_SCOPES

    def _extract_basic_auth(self, request: Any) -> None:
        # Quota takes client_secret_post only.
        return None

    def is_pkce_required(self, client_id: str, request: Any) -> bool:
        """Ask every client for PKCE, as OAuth 2.1 does."""
        return True

    def validate_scopes(
        self, client_id: str, scopes: list[str], client: Any, request: Any, *args: Any, **kw: Any
    ) -> bool:
        """Refuse scopes outside the app's ``allowed_scopes``, and asking for none at all."""
        allowed: bool = super().validate_scopes(client_id, scopes, client, request, *args, **kw)
        return allowed and bool(scopes)

    def get_default_redirect_uri(
        self, client_id: str, request: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Have none: the redirect URI must be sent."""
        return None

    def confirm_redirect_uri(
        self, client_id: str, code: str, redirect_uri: str, client: Any, *args: Any, **kwargs: Any
    ) -> bool:
        """Refuse another URI than the code was issued for, with RFC 6749's error code."""
        if super().confirm_redirect_uri(client_id, code, redirect_uri, client, *args, **kwargs):
            return True
        raise InvalidGrantError(description="redirect_uri is not the one of the authorization.")

    def _create_authorization_code(self, request: Any, code: Any, expires: Any = None) -> Any:
        request.resource = []  # RFC 8707 is no part of Quota: tokens are for all of it.
        return super()._create_authorization_code(request, code, expires)

    def _check_and_set_request_resource(self, request: Any) -> None:
        request.resource = []

    # The view decides about prompt=none; it knows the browser session, oauthlib does not.
    def validate_silent_login(self, request: Any) -> bool:
        """Leave it to the view."""
        return True

    def validate_silent_authorization(self, request: Any) -> bool:
        """Leave it to the view."""
        return True

    def get_oidc_issuer_endpoint(self, request: Any) -> str:
        """Return the issuer written into id_tokens."""
        return state.issuer

    def get_additional_claims(self, request: Any) -> dict[str, Any]:
        """Return the claims of an id_token, before scopes are looked at."""
        return identity_claims(request.user)

    def get_id_token_dictionary(self, token: Any, token_handler: Any, request: Any) -> Any:
        """Read the id_token's lifetime from its knob."""
        oauth2_settings.ID_TOKEN_EXPIRE_SECONDS = state.knobs.id_token_lifetime
        return super().get_id_token_dictionary(token, token_handler, request)

    def finalize_id_token(
        self, id_token: dict[str, Any], token: Any, token_handler: Any, request: Any
    ) -> str:
        """Sign, and rewrite the claims that the knob names."""
        signed: str = super().finalize_id_token(id_token, token, token_handler, request)
        overrides = state.knobs.id_token_overrides
        return override_claims(signed, overrides) if overrides else signed

    def _load_id_token(self, token: str) -> Any | None:
        # The library's own raises for claims that a knob has removed.
        return find_id_token(token)

    def rotate_refresh_token(self, request: Any) -> bool:
        """Follow the knob."""
        return state.knobs.rotate_refresh_tokens

    def validate_refresh_token(
        self, refresh_token: str, client: Any, request: Any, *args: Any, **kwargs: Any
    ) -> bool:
        """Check a refresh token, as strictly as the knobs say."""
        oauth2_settings.REFRESH_TOKEN_GRACE_PERIOD_SECONDS = state.knobs.refresh_grace_seconds
        oauth2_settings.REFRESH_TOKEN_REUSE_PROTECTION = state.knobs.reuse_detection
        valid: bool = super().validate_refresh_token(
            refresh_token, client, request, *args, **kwargs
        )
        return valid

    def _save_bearer_token(
        self, token: dict[str, Any], request: Any, *args: Any, **kwargs: Any
    ) -> None:
        spent = getattr(request, "refresh_token_instance", None)
        if spent is not None and state.knobs.access_token_survives_refresh:
            # Rotation deletes the access token a refresh token points to; so point to none.
            get_refresh_token_model().objects.filter(pk=spent.pk).update(access_token=None)
        issued = token["access_token"]
        super()._save_bearer_token(token, request, *args, **kwargs)
        if token["access_token"] != issued:
            self._describe_replayed_pair(token, request)

    def _describe_replayed_pair(self, token: dict[str, Any], request: Any) -> None:
        """Within the grace period the library swaps in the pair issued before; it leaves the
        lifetime and the id_token's ``at_hash`` of the pair it threw away."""
        access_token = get_access_token_model().objects.get(
            token_checksum=checksum(token["access_token"])
        )
        left = int((access_token.expires - timezone.now()).total_seconds())
        token["expires_in"] = max(left, 0)
        if "id_token" in token:
            digest = hashlib.sha256(token["access_token"].encode()).digest()[:16]
            claims = {
                "aud": request.client_id,
                "iat": int(time.time()),
                "at_hash": base64.urlsafe_b64encode(digest).decode().rstrip("="),
            }
            token["id_token"] = self.finalize_id_token(claims, token, None, request)
