"""The authentication backend. It gets an identity that was validated before, and does no HTTP.

The base class is mozilla-django-oidc's, so that its extension points are found here under their
own names: `verify_claims`, `filter_users_by_claims`, `create_user`, `get_username`,
`update_user`. Its flow is not used: that accepts foreign tokens and matches people by e-mail.
"""

import secrets
from collections.abc import Mapping
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth.backends import ModelBackend
from django.db.models import QuerySet
from django.http import HttpRequest
from mozilla_django_oidc.auth import OIDCAuthenticationBackend

from . import accounts
from .conf import get_settings
from .exceptions import SignInFailed
from .id_token import Identity
from .models import ProviderAccount

__all__ = ["QuotaBackend"]


class QuotaBackend(OIDCAuthenticationBackend):  # type: ignore[misc]
    """Signs in the user that a Quota identity belongs to; the first time, makes or links one."""

    _suffix = ""

    def __init__(self) -> None:
        """Nothing: Django builds every backend on each request that touches `request.user`, and
        the base class would read a dozen OIDC_* settings, none of which is ours."""

    def authenticate(self, request: HttpRequest | None, *, quota_identity: Identity) -> Any:
        """The user of `quota_identity`, or a SignInFailed that says why there is none.

        The keyword is our own: Django offers credentials to every backend that takes them, and
        another OpenID Connect backend in the project must not be given ours, nor we its.
        """
        self.request = request
        if not self.verify_claims(quota_identity.claims):
            raise SignInFailed("sign_in_refused", "verify_claims refused this person")
        account = self._account(quota_identity)
        user = account.user
        if not self.user_can_authenticate(user):
            raise SignInFailed("account_inactive", f"user {user.pk} is not active")
        accounts.record_sign_in(account, quota_identity)
        return self.update_user(user, quota_identity.claims)

    async def aauthenticate(self, request: HttpRequest | None, *, quota_identity: Identity) -> Any:
        """`authenticate` for async code."""
        return await sync_to_async(self.authenticate)(request, quota_identity=quota_identity)

    def _account(self, identity: Identity) -> ProviderAccount:
        account = accounts.find(identity.subject)
        if account is not None:
            return account
        users = list(self.filter_users_by_claims(identity.claims)[:2])
        if len(users) == 1:
            return accounts.link(users[0], identity)
        if not get_settings().create_user:
            raise SignInFailed("sign_up_closed", "QUOTA_CREATE_USER is False, and they are unknown")
        try:
            return accounts.create(identity, self.create_user)
        except SignInFailed:
            # Anybody may have chosen that username for themselves. If it was not that, then the
            # same happens again.
            self._suffix = f"-{secrets.token_hex(4)}"
            return accounts.create(identity, self.create_user)

    # --- mozilla-django-oidc's extension points; `claims` are those of the validated id_token ---

    def verify_claims(self, claims: Mapping[str, Any]) -> bool:
        """May this person sign in at all? Override to allow, say, one e-mail domain only."""
        return True

    def filter_users_by_claims(self, claims: Mapping[str, Any]) -> "QuerySet[Any]":
        """Local users to link a first sign-in with; used only if it is exactly one.

        None by default, and those with the same verified e-mail under QUOTA_LINK_BY_EMAIL. Who is
        linked already is found by `sub` before this is asked.
        """
        return accounts.candidates_by_email(Identity.from_claims(claims))

    def create_user(self, claims: Mapping[str, Any]) -> Any:
        """Make and return the user of a first sign-in. Override to fill more fields."""
        return accounts.new_user(Identity.from_claims(claims), self.get_username(claims))

    def get_username(self, claims: Mapping[str, Any]) -> str:
        """The username of a new user: from the `sub`, never from the e-mail address."""
        return accounts.username_for(claims["sub"], self._suffix)

    def update_user(self, user: Any, claims: Mapping[str, Any]) -> Any:
        """Called at every sign-in. Override to copy claims into your own user model."""
        return user

    # --- what the base class overrides less safely than Django itself ---

    def get_user(self, user_id: Any) -> Any:
        """Django's own: None for a user who has been deactivated."""
        return ModelBackend.get_user(self, user_id)
