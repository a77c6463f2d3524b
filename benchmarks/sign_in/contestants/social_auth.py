from __future__ import annotations

import time
from typing import Any

from benchmarks.sign_in.project import CLIENT_ID, CLIENT_SECRET, SCOPES, Project


class SocialAuth(Project):
    """social-auth-app-django with its backend for OpenID Connect. Its tokens are in clear text.

    It renews a token of which it knows when it expires; its backend for OpenID Connect stores that
    only where `EXTRA_DATA` says so.
    """

    name = "social-auth-app-django"
    package = "social-auth-app-django"
    apps = ("social_django",)
    backends = ("social_core.backends.open_id_connect.OpenIdConnectAuth",)
    start = "/social/login/oidc/"
    start_method = "POST"
    promises = ("user", "last_login", "session", "link", "refresh_token")
    renews = True

    def settings(self, origin: str) -> dict[str, Any]:
        return {
            "SOCIAL_AUTH_OIDC_OIDC_ENDPOINT": origin,
            "SOCIAL_AUTH_OIDC_KEY": CLIENT_ID,
            "SOCIAL_AUTH_OIDC_SECRET": CLIENT_SECRET,
            "SOCIAL_AUTH_OIDC_SCOPE": list(SCOPES),
            "SOCIAL_AUTH_OIDC_USE_PKCE": True,
            "SOCIAL_AUTH_OIDC_EXTRA_DATA": [("expires_in", "expires")],
            "SOCIAL_AUTH_LOGIN_REDIRECT_URL": "/",
        }

    def urls(self) -> list[Any]:
        from django.urls import include, path

        return [path("social/", include("social_django.urls", namespace="social"))]

    def fill(self, users: list[Any]) -> None:
        from social_django.models import UserSocialAuth

        UserSocialAuth.objects.bulk_create(
            (UserSocialAuth(user=user, provider="oidc", uid=user.username) for user in users),
            batch_size=1000,
        )

    def is_linked(self, user: Any, sub: str) -> bool:
        return bool(user.social_auth.filter(uid=sub).count() == 1)

    def refresh_token(self, user: Any) -> str:
        return str(user.social_auth.get().extra_data["refresh_token"])

    def expire(self, user: Any, access_token: str, refresh_token: str) -> None:
        user.social_auth.update(
            extra_data={
                "access_token": access_token,
                "refresh_token": refresh_token,
                "expires": 3600,
                "auth_time": int(time.time()) - 3600,
            }
        )

    def access_token(self, user: Any) -> str:
        from social_django.utils import load_strategy

        return str(user.social_auth.get(provider="oidc").get_access_token(load_strategy()))
