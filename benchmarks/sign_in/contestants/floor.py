from __future__ import annotations

from typing import Any

from benchmarks.sign_in.project import Project


class Floor(Project):
    """The same by hand (benchmarks/sign_in/floor): the least that a sign-in can cost."""

    name = "floor"
    package = "PyJWT"
    apps = ("benchmarks.sign_in.floor",)
    start = "/floor/start"
    promises = ("user", "last_login", "session", "link", "refresh_token", "encrypted")
    renews = True

    def urls(self) -> list[Any]:
        from django.urls import path

        from benchmarks.sign_in.floor import views

        return [
            path("floor/start", views.start),
            path("floor/callback", views.callback, name="floor-callback"),
        ]

    def fill(self, users: list[Any]) -> None:
        from django.utils import timezone

        from benchmarks.sign_in.floor.models import Account, Token

        accounts = Account.objects.bulk_create(
            (Account(user=user, sub=user.username, email=user.email) for user in users),
            batch_size=1000,
        )
        names = ("access_token", "refresh_token", "id_token")
        tokens = dict.fromkeys(names, "quota_token") | {"expires_at": timezone.now()}
        Token.objects.bulk_create(
            (Token(account=account, **tokens) for account in accounts), batch_size=1000
        )

    def is_linked(self, user: Any, sub: str) -> bool:
        from benchmarks.sign_in.floor.models import Account

        return Account.objects.filter(user=user, sub=sub).count() == 1

    def refresh_token(self, user: Any) -> str:
        from benchmarks.sign_in.floor.models import Token

        return str(Token.objects.get(account__user=user).refresh_token)

    def expire(self, user: Any, access_token: str, refresh_token: str) -> None:
        from django.utils import timezone

        from benchmarks.sign_in.floor.models import Token

        Token.objects.filter(account__user=user).update(
            access_token=access_token, refresh_token=refresh_token, expires_at=timezone.now()
        )

    def access_token(self, user: Any) -> str | None:
        from benchmarks.sign_in.floor.rows import access_token

        return access_token(user)
