"""All scopes of Quota, with their descriptions on the consent page."""

from __future__ import annotations

from typing import Any

from oauth2_provider.scopes import BaseScopes

__all__ = ["SCOPES", "ApplicationScopes"]

SCOPES = {
    "openid": "Confirm who you are with your Quota account",
    "profile": "See your name and picture",
    "email": "See your e-mail address",
    "credits.read": "See your credit balance and usage",
    "credits.spend": "Spend your credits on AI requests you make in this app",
    "account.read": "See your account profile and billing settings",
    "account.write": "Change your account and billing settings",
    "apps.read": "See your developer apps",
    "apps.write": "Create and change your developer apps",
}


class ApplicationScopes(BaseScopes):  # type: ignore[misc]  # the library is untyped
    """Limits each app to its ``allowed_scopes``."""

    def get_all_scopes(self) -> dict[str, str]:
        """Return the description of every scope, by name."""
        return SCOPES

    def get_available_scopes(
        self, application: Any = None, request: Any = None, *args: Any, **kwargs: Any
    ) -> list[str]:
        """Return the scopes that the app may request."""
        return list(application.allowed_scopes) if application is not None else []

    def get_default_scopes(
        self, application: Any = None, request: Any = None, *args: Any, **kwargs: Any
    ) -> list[str]:
        """Return no scopes: a request has to name them."""
        return []
