"""The authentication backend. It takes an identity that is validated already, and makes no request.

The base class comes from mozilla-django-oidc, so projects can override the methods that they know:
`verify_claims`, `filter_users_by_claims`, `create_user`, `get_username` and `update_user`. Its
sign-in flow is not used, because it accepts tokens of other clients and matches people by e-mail.
"""

import secrets
from collections.abc import Mapping
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth.backends import ModelBackend
from django.db.models import QuerySet
from django.http import HttpRequest
from mozilla_django_oidc.auth import OIDCAuthenticationBackend

from django_quota.oidc.id_token import Identity

from . import accounts
from .conf import get_settings
from .exceptions import SignInFailed
from .models import ProviderAccount

__all__ = ["QuotaBackend"]


class QuotaBackend(OIDCAuthenticationBackend):  # type: ignore[misc]
    """Signs in the user of a Quota identity. The first sign-in creates or links that user."""

    _suffix = ""

    def __init__(self) -> None:
        """Do not call the base class, which reads OIDC_* settings that this package does not use.

        Django creates every backend on each request that uses `request.user`.
        """

    def authenticate(self, request: HttpRequest | None, *, quota_identity: Identity) -> Any:
        """Return the user of `quota_identity`. Raises SignInFailed if they may not sign in.

        Only this backend takes the keyword `quota_identity`: Django passes credentials to every
        backend that accepts their names, and the project may have another OpenID Connect backend.
        """
        self.request = request
        if not self.verify_claims(quota_identity.claims):
            raise SignInFailed("sign_in_refused", "verify_claims refused this person")
        known = accounts.find(quota_identity.subject, with_token=True)
        account = known or self._new_account(quota_identity)
        user = account.user
        # A user who is signed in already may renew the connection.
        current = getattr(request, "user", None)
        if not accounts.may_sign_in(account) and (current is None or current.pk != user.pk):
            raise SignInFailed(
                "wallet_only",
                f"user {user.pk} has a password and has only connected a wallet; "
                "QUOTA_CONNECT_SIGNS_IN = True would let them sign in with it",
            )
        if not self.user_can_authenticate(user):
            raise SignInFailed("account_inactive", f"user {user.pk} is not active")
        if known is not None:
            accounts.record_sign_in(known, quota_identity)
        # A subclass may change the account in `update_user`, so that it must be read again.
        if request is not None and type(self) is QuotaBackend:
            request.quota_account = account  # type: ignore[attr-defined]
        return self.update_user(user, quota_identity.claims)

    async def aauthenticate(self, request: HttpRequest | None, *, quota_identity: Identity) -> Any:
        """`authenticate` for async code."""
        return await sync_to_async(self.authenticate)(request, quota_identity=quota_identity)

    def _new_account(self, identity: Identity) -> ProviderAccount:
        """Create or link the user of a first sign-in."""
        users = list(self.filter_users_by_claims(identity.claims)[:2])
        if len(users) == 1:
            return accounts.link(users[0], identity)
        if not get_settings().allow_duplicate_email and accounts.is_email_known(identity):
            return self._signed_in_meanwhile(identity)
        if not get_settings().create_user:
            raise SignInFailed(
                "sign_up_closed", "QUOTA_CREATE_USER is False, and this person has no user here"
            )
        try:
            return accounts.create(identity, self.create_user)
        except SignInFailed:
            # Another user may have that username, so try another one. If the cause was different,
            # the second attempt raises the same error.
            self._suffix = f"-{secrets.token_hex(4)}"
            return accounts.create(identity, self.create_user)

    def _signed_in_meanwhile(self, identity: Identity) -> ProviderAccount:
        """Return the account, if another first sign-in of this person has just created it."""
        account = accounts.find(identity.subject)
        if account is None:
            raise SignInFailed(
                "email_known",
                "a user here has the address that Quota has verified: let them sign in as usual "
                "and connect the wallet; QUOTA_ALLOW_DUPLICATE_EMAIL would create a second user",
            )
        return account

    # Extension points of mozilla-django-oidc. `claims` are those of the validated id_token.

    def verify_claims(self, claims: Mapping[str, Any]) -> bool:
        """Return True if this person may sign in. Override it to allow one e-mail domain, say."""
        return True

    def filter_users_by_claims(self, claims: Mapping[str, Any]) -> "QuerySet[Any]":
        """Return the users to link a first sign-in with. The result counts if it is one user.

        The default is no user or, with QUOTA_LINK_BY_EMAIL, those with the same verified e-mail
        address. It is not called for a person whose `sub` is linked already.
        """
        return accounts.candidates_by_email(Identity.from_claims(claims))

    def create_user(self, claims: Mapping[str, Any]) -> Any:
        """Create and return the user of a first sign-in. Override it to fill more fields."""
        return accounts.new_user(Identity.from_claims(claims), self.get_username(claims))

    def get_username(self, claims: Mapping[str, Any]) -> str:
        """Return the username of a new user: from the `sub`, never from the e-mail address."""
        return accounts.username_for(claims["sub"], self._suffix)

    def update_user(self, user: Any, claims: Mapping[str, Any]) -> Any:
        """Return the user. Called at every sign-in; override it to copy claims to the user."""
        return user

    # The base class overrides this less safely than Django.

    def get_user(self, user_id: Any) -> Any:
        """Return the user as Django's ModelBackend does: None if they are not active."""
        return ModelBackend.get_user(self, user_id)
