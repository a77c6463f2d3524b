from __future__ import annotations

from typing import Any

from benchmarks.sign_in.project import CLIENT_ID, CLIENT_SECRET, SCOPES, Project
from tests.hostile.provider import AUTHORIZE, JWKS, TOKEN, USERINFO


class Mozilla(Project):
    """Stock mozilla-django-oidc. It finds users by e-mail and stores no token.

    It cannot renew one: it has no code for a refresh token. Its middleware `SessionRefresh` sends
    the browser to the provider again.
    """

    name = "mozilla-django-oidc"
    package = "mozilla-django-oidc"
    apps = ("mozilla_django_oidc",)
    backends = ("mozilla_django_oidc.auth.OIDCAuthenticationBackend",)
    start = "/oidc/authenticate/"

    def settings(self, origin: str) -> dict[str, Any]:
        return {
            "OIDC_RP_CLIENT_ID": CLIENT_ID,
            "OIDC_RP_CLIENT_SECRET": CLIENT_SECRET,
            "OIDC_RP_SCOPES": " ".join(SCOPES),
            "OIDC_RP_SIGN_ALGO": "RS256",
            "OIDC_USE_PKCE": True,
            "OIDC_OP_AUTHORIZATION_ENDPOINT": origin + AUTHORIZE,
            "OIDC_OP_TOKEN_ENDPOINT": origin + TOKEN,
            "OIDC_OP_USER_ENDPOINT": origin + USERINFO,
            "OIDC_OP_JWKS_ENDPOINT": origin + JWKS,
        }

    def urls(self) -> list[Any]:
        from django.urls import include, path

        return [path("oidc/", include("mozilla_django_oidc.urls"))]
