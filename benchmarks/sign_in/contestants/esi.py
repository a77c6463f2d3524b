from __future__ import annotations

from typing import Any

from benchmarks.sign_in.project import Project


class Esi(Project):
    """django-esi: tokens of another provider, in clear text. It signs nobody in."""

    name = "django-esi"
    package = "django-esi"
    apps = ("esi",)

    def settings(self, origin: str) -> dict[str, Any]:
        return {
            "ESI_SSO_CLIENT_ID": "x",
            "ESI_SSO_CLIENT_SECRET": "x",
            "ESI_SSO_CALLBACK_URL": "http://localhost:8000/callback",
            "ESI_USER_CONTACT_EMAIL": "ada@example.com",
        }

    def prepare(self) -> None:
        from django.contrib.auth import get_user_model

        user: Any = get_user_model().objects.create(username="x", email="returning@example.com")
        user.token_set.create(
            access_token="quota_token_x",
            refresh_token="quota_refresh_x",
            character_id=1,
            character_name="Ada",
            character_owner_hash="x",
        )

    def access_token(self, user: Any) -> str:
        return str(user.token_set.get(character_id=1).valid_access_token())
