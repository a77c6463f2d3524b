"""Quota's rules for tokens and claims, where they differ from django-oauth-toolkit's."""

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

__all__ = ["CLAIM_SCOPES", "QuotaOAuthLibCore", "QuotaValidator", "get_identity_claims"]

#: The scope that allows a claim, by claim.
CLAIM_SCOPES = {
    "sub": "openid",
    "name": "profile",
    "picture": "profile",
    "email": "email",
    "email_verified": "email",
}


def get_identity_claims(user: User) -> dict[str, Any]:
    """Return all identity claims of a user, including those that no scope allows."""
    claims: dict[str, Any] = {"sub": str(user.pk)}
    if user.name:
        claims["name"] = user.name
    if user.picture_path:
        claims["picture"] = f"{state.origin}{user.picture_path}"
    return claims | {"email": user.email, "email_verified": user.email_verified}


class QuotaOAuthLibCore(OAuthLibCore):  # type: ignore[misc]  # the library is untyped
    """Passes well-formed query strings to oauthlib."""

    def _get_escaped_full_path(self, request: HttpRequest) -> str:
        # oauthlib raises ValueError for a query string such as "%zz". Django has decoded it without
        # an error, and encoding the result again makes it well-formed.
        return f"{request.path}?{request.GET.urlencode()}"


class QuotaValidator(OAuth2Validator):  # type: ignore[misc]  # the library is untyped
    """Validates requests by Quota's rules and by the knobs."""

    oidc_claim_scope = CLAIM_SCOPES

    def _extract_basic_auth(self, request: Any) -> None:
        # Quota only supports client_secret_post.
        return None

    def is_pkce_required(self, client_id: str, request: Any) -> bool:
        """Require PKCE of every client, as OAuth 2.1 does."""
        return True

    def validate_scopes(
        self, client_id: str, scopes: list[str], client: Any, request: Any, *args: Any, **kw: Any
    ) -> bool:
        """Reject scopes that are not in the app's ``allowed_scopes``, and an empty list."""
        allowed: bool = super().validate_scopes(client_id, scopes, client, request, *args, **kw)
        return allowed and bool(scopes)

    def get_default_redirect_uri(
        self, client_id: str, request: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Return None: a request must contain its redirect URI."""
        return None

    def confirm_redirect_uri(
        self, client_id: str, code: str, redirect_uri: str, client: Any, *args: Any, **kwargs: Any
    ) -> bool:
        """Reject a redirect URI that the code was not issued for, with ``invalid_grant``."""
        if super().confirm_redirect_uri(client_id, code, redirect_uri, client, *args, **kwargs):
            return True
        raise InvalidGrantError(description="redirect_uri differs from the authorization request.")

    def _create_authorization_code(self, request: Any, code: Any, expires: Any = None) -> Any:
        request.resource = []  # Quota does not support resource indicators (RFC 8707).
        return super()._create_authorization_code(request, code, expires)

    def _check_and_set_request_resource(self, request: Any) -> None:
        request.resource = []

    # AuthorizeView handles prompt=none, because only a view knows the browser's session.
    def validate_silent_login(self, request: Any) -> bool:
        """Return True: the view decides."""
        return True

    def validate_silent_authorization(self, request: Any) -> bool:
        """Return True: the view decides."""
        return True

    def get_oidc_issuer_endpoint(self, request: Any) -> str:
        """Return the issuer for id_tokens."""
        return state.issuer

    def get_additional_claims(self, request: Any) -> dict[str, Any]:
        """Return the identity claims for an id_token; the library filters them by scope."""
        return get_identity_claims(request.user)

    def get_id_token_dictionary(self, token: Any, token_handler: Any, request: Any) -> Any:
        """Build an id_token with the lifetime that the knob sets."""
        oauth2_settings.ID_TOKEN_EXPIRE_SECONDS = state.knobs.id_token_lifetime
        return super().get_id_token_dictionary(token, token_handler, request)

    def finalize_id_token(
        self, id_token: dict[str, Any], token: Any, token_handler: Any, request: Any
    ) -> str:
        """Sign an id_token, and replace the claims that the knob names."""
        signed: str = super().finalize_id_token(id_token, token, token_handler, request)
        overrides = state.knobs.id_token_overrides
        return override_claims(signed, overrides) if overrides else signed

    def _load_id_token(self, token: str) -> Any | None:
        # The library's method raises if a knob has removed a claim.
        return find_id_token(token)

    def rotate_refresh_token(self, request: Any) -> bool:
        """Return the value of the knob."""
        return state.knobs.rotate_refresh_tokens

    def validate_refresh_token(
        self, refresh_token: str, client: Any, request: Any, *args: Any, **kwargs: Any
    ) -> bool:
        """Validate a refresh token as strictly as the knobs require."""
        oauth2_settings.REFRESH_TOKEN_GRACE_PERIOD_SECONDS = state.knobs.refresh_grace_seconds
        oauth2_settings.REFRESH_TOKEN_REUSE_PROTECTION = state.knobs.reuse_detection
        valid: bool = super().validate_refresh_token(
            refresh_token, client, request, *args, **kwargs
        )
        return valid

    def _save_bearer_token(
        self, token: dict[str, Any], request: Any, *args: Any, **kwargs: Any
    ) -> None:
        used = getattr(request, "refresh_token_instance", None)
        if used is not None and state.knobs.access_token_survives_refresh:
            # Rotation deletes the access token that the refresh token points to, so this removes
            # the reference.
            get_refresh_token_model().objects.filter(pk=used.pk).update(access_token=None)
        new_access_token = token["access_token"]
        super()._save_bearer_token(token, request, *args, **kwargs)
        if token["access_token"] != new_access_token:
            self._correct_repeated_reply(token, request)

    def _correct_repeated_reply(self, token: dict[str, Any], request: Any) -> None:
        """Correct ``expires_in`` and the id_token of a reply within the grace period.

        The library then returns the tokens that it issued before, but leaves the lifetime and the
        ``at_hash`` of the new tokens, which it has discarded.
        """
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
