from __future__ import annotations

from datetime import timedelta
from typing import Any

from benchmarks.sign_in.project import CLIENT_ID, CLIENT_SECRET, Project
from tests.hostile.provider import JWKS, TOKEN


class Esi(Project):
    """django-esi: tokens of another provider, in clear text. It signs nobody in."""

    name = "django-esi"
    package = "django-esi"
    apps = ("esi",)
    renews = True

    def settings(self, origin: str) -> dict[str, Any]:
        return {
            "ESI_SSO_CLIENT_ID": CLIENT_ID,
            "ESI_SSO_CLIENT_SECRET": CLIENT_SECRET,
            "ESI_CODE_EXCHANGE_URL": origin + TOKEN,
            "ESI_SSO_CALLBACK_URL": "http://localhost:8000/callback",
            "ESI_USER_CONTACT_EMAIL": "ada@example.com",
        }

    def prepare(self) -> None:
        from django.contrib.auth import get_user_model
        from esi import app_settings

        from benchmarks.sign_in.settings import CONTESTANT

        # It is no setting of the package, which asks there after each renewal.
        app_settings.ESI_TOKEN_JWK_SET_URL = CONTESTANT["origin"] + JWKS
        user, is_new = get_user_model().objects.get_or_create(
            username="x", email="returning@example.com"
        )
        if is_new:
            self.fill([user])

    def fill(self, users: list[Any]) -> None:
        from esi.models import Token

        Token.objects.bulk_create(
            (
                Token(
                    user=user,
                    access_token="quota_token_x",
                    refresh_token="quota_refresh_x",
                    character_id=1,
                    character_name="Ada",
                    character_owner_hash="x",
                )
                for user in users
            ),
            batch_size=1000,
        )

    def refresh_token(self, user: Any) -> str:
        return str(user.token_set.get().refresh_token)

    def expire(self, user: Any, access_token: str, refresh_token: str) -> None:
        from django.utils import timezone

        user.token_set.update(
            access_token=access_token,
            refresh_token=refresh_token,
            created=timezone.now() - timedelta(hours=1),
        )

    def access_token(self, user: Any) -> str:
        return str(user.token_set.get(character_id=1).valid_access_token())
