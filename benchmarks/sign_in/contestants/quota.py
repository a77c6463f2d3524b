from __future__ import annotations

from typing import Any

from benchmarks.sign_in.project import CLIENT_ID, CLIENT_SECRET, Project


class Quota(Project):
    """This package, as the README says."""

    name = "django_quota"
    package = "django-quota"
    apps = ("django_quota",)
    middleware = ("django_quota.middleware.QuotaMiddleware",)
    backends = ("django_quota.backends.QuotaBackend",)
    start = "/auth/quota/start"
    promises = ("user", "last_login", "session", "link", "refresh_token", "encrypted")
    renews = True

    def settings(self, origin: str) -> dict[str, Any]:
        return {
            "LOGIN_URL": "django_quota:start",
            "QUOTA_BASE_URL": origin,
            "QUOTA_CLIENT_ID": CLIENT_ID,
            "QUOTA_CLIENT_SECRET": CLIENT_SECRET,
        }

    def urls(self) -> list[Any]:
        from django.urls import include, path

        return [path("auth/quota/", include("django_quota.urls"))]

    def fill(self, users: list[Any]) -> None:
        from django_quota.fields import Sealed
        from django_quota.models import ProviderAccount, QuotaToken

        accounts = ProviderAccount.objects.bulk_create(
            (ProviderAccount(user=user, external_id=user.username) for user in users),
            batch_size=1000,
        )
        names = ("access_token", "refresh_token", "id_token")
        tokens: Any = dict.fromkeys(names, Sealed.of("quota_token"))
        QuotaToken.objects.bulk_create(
            (QuotaToken(account=account, **tokens) for account in accounts), batch_size=1000
        )

    def is_linked(self, user: Any, sub: str) -> bool:
        from django_quota.models import ProviderAccount

        return ProviderAccount.objects.filter(user=user, external_id=sub).count() == 1

    def refresh_token(self, user: Any) -> str:
        from django_quota.models import QuotaToken

        return str(QuotaToken.objects.get(account__user=user).refresh_token.reveal())

    def expire(self, user: Any, access_token: str, refresh_token: str) -> None:
        from django.utils import timezone

        from django_quota.fields import Sealed
        from django_quota.models import QuotaToken

        QuotaToken.objects.filter(account__user=user).update(
            access_token=Sealed.of(access_token),
            refresh_token=Sealed.of(refresh_token),
            expires_at=timezone.now(),
        )

    def access_token(self, user: Any) -> str:
        from django_quota.tokens import get_access_token

        return get_access_token(user)
