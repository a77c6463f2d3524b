from __future__ import annotations

from typing import Any

from benchmarks.sign_in.project import CLIENT_ID, CLIENT_SECRET, SCOPES, Project


class Allauth(Project):
    """django-allauth with its generic provider for OpenID Connect. Its tokens are in clear text.

    It cannot renew one: it stores the refresh token, as `SocialToken.token_secret`, but no code of
    it sends one to a provider.
    """

    name = "django-allauth"
    package = "django-allauth"
    apps = (
        "allauth",
        "allauth.account",
        "allauth.socialaccount",
        "allauth.socialaccount.providers.openid_connect",
    )
    middleware = ("allauth.account.middleware.AccountMiddleware",)
    backends = ("allauth.account.auth_backends.AuthenticationBackend",)
    start = "/accounts/oidc/quota/login/"
    promises = ("user", "last_login", "session", "link", "refresh_token")

    def settings(self, origin: str) -> dict[str, Any]:
        app = {
            "provider_id": "quota",
            "name": "Quota",
            "client_id": CLIENT_ID,
            "secret": CLIENT_SECRET,
            "settings": {"server_url": f"{origin}/.well-known/openid-configuration"},
        }
        return {
            "SOCIALACCOUNT_PROVIDERS": {
                "openid_connect": {
                    "APPS": [app],
                    "OAUTH_PKCE_ENABLED": True,
                    "SCOPE": list(SCOPES),
                }
            },
            "SOCIALACCOUNT_STORE_TOKENS": True,
            "SOCIALACCOUNT_LOGIN_ON_GET": True,
            "ACCOUNT_EMAIL_VERIFICATION": "none",
        }

    def urls(self) -> list[Any]:
        from django.urls import include, path

        return [path("accounts/", include("allauth.urls"))]

    def fill(self, users: list[Any]) -> None:
        from allauth.account.models import EmailAddress
        from allauth.socialaccount.models import SocialAccount, SocialToken

        accounts = SocialAccount.objects.bulk_create(
            (SocialAccount(user=user, provider="quota", uid=user.username) for user in users),
            batch_size=1000,
        )
        SocialToken.objects.bulk_create(
            (SocialToken(account=account, token="x") for account in accounts), batch_size=1000
        )
        EmailAddress.objects.bulk_create(
            (EmailAddress(user=user, email=user.email, primary=True) for user in users),
            batch_size=1000,
        )

    def _tokens(self, user: Any) -> Any:
        from allauth.socialaccount.models import SocialToken

        return SocialToken.objects.filter(account__user=user)

    def is_linked(self, user: Any, sub: str) -> bool:
        return bool(user.socialaccount_set.filter(uid=sub).count() == 1)

    def refresh_token(self, user: Any) -> str:
        return str(self._tokens(user).get().token_secret)

    def access_token(self, user: Any) -> str:
        return str(self._tokens(user).get().token)
