"""What a contestant is."""

from __future__ import annotations

from typing import Any

from tests.hostile.provider import CLIENT_ID, CLIENT_SECRET

__all__ = ["CLIENT_ID", "CLIENT_SECRET", "SCOPES", "Project"]

SCOPES = ("openid", "profile", "email", "credits.read", "credits.spend")


class Project:
    """A Django project that signs people in as the documentation of its package says, with PKCE and
    nonce; and how to find what a sign-in has written.

    Nothing of Django may be imported with its module, as the settings ask for it.
    """

    name: str
    #: The distribution whose version is shown.
    package: str
    apps: tuple[str, ...] = ()
    middleware: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()
    #: Path and method of the view that starts a sign-in; "" if it signs nobody in.
    start: str = ""
    start_method: str = "GET"
    #: What must be found after each sign-in, of `contestant.CHECKS`.
    promises: tuple[str, ...] = ("user", "last_login", "session")
    #: True if `access_token` renews a token that has expired.
    renews: bool = False

    def settings(self, origin: str) -> dict[str, Any]:
        """Its Django settings, for the provider at `origin`."""
        return {}

    def urls(self) -> list[Any]:
        return []

    def prepare(self) -> None:
        """Before anything is measured."""

    def fill(self, users: list[Any]) -> None:
        """The rows that sign-ins of `users`, each named as their `sub`, would have left."""

    def is_linked(self, user: Any, sub: str) -> bool:
        """True if a row says that `user` is `sub`."""
        return False

    def refresh_token(self, user: Any) -> str:
        """The stored refresh token in clear text; "" if it stores none."""
        return ""

    def expire(self, user: Any, access_token: str, refresh_token: str) -> None:
        """Store these tokens for `user`, for whom `fill` made the rows, as expired."""

    def access_token(self, user: Any) -> str | None:
        """A token for one call, as a project gets it; None if the package offers none."""
        return None
