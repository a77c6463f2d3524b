"""Users, accounts and tokens in the database, and what a test does to them there."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.db import connection
from django.utils import timezone

from django_quota.models import ProviderAccount, QuotaToken
from django_quota.oidc.endpoints import TokenReply
from django_quota.tokens import storing
from django_quota.tokens.issued import Issued

SECRETS = ("access_token", "refresh_token", "id_token")
HUSH = {name: f"hush-{name}" for name in SECRETS}


def make_user(name: str = "ada") -> Any:
    return get_user_model().objects.create(username=name)


def make_account(who: str = "ada", **changes: Any) -> ProviderAccount:
    values = {"user": changes.pop("user", None) or make_user(who), "external_id": who}
    return ProviderAccount.objects.create(**(values | changes))


def make_token(who: str = "ada", **changes: Any) -> QuotaToken:
    return QuotaToken.objects.create(account=make_account(who), **(HUSH | changes))


def token_reply(family: str) -> TokenReply:
    """What a sign-in brings from `tests.light_provider`: the first pair of `family`."""
    return TokenReply(
        access_token=f"quota_token_{family}.0",
        refresh_token=f"quota_refresh_{family}.0",
        id_token=None,
        expires_in=3600,
        scope=None,
    )


def pair() -> tuple[str, str]:
    """The access token and the refresh token of the only row, in clear text."""
    row = QuotaToken.objects.get()
    return row.access_token.reveal(), row.refresh_token.reveal()


def expire(seconds: float = -1) -> None:
    """Let all access tokens expire in so many seconds."""
    QuotaToken.objects.update(expires_at=timezone.now() + timedelta(seconds=seconds))


def spoil(*columns: str, pk: Any = None) -> None:
    """From now on no key fits these columns of the token row `pk` (by default of all of them)."""
    for column in columns:
        _execute(f"UPDATE django_quota_quotatoken SET {column} = 'spoilt'", pk)


def stored(column: str = "access_token", pk: Any = None) -> str:
    """The ciphertext in that column of the token row `pk` (by default of the only one)."""
    ((value,),) = _execute(f"SELECT {column} FROM django_quota_quotatoken", pk)
    return str(value)


def _execute(sql: str, pk: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        if pk is None:
            cursor.execute(sql)
        else:
            cursor.execute(f"{sql} WHERE id = %s", [pk])
        return list(cursor.fetchall()) if cursor.description else []


def store_tokens(account: ProviderAccount, reply: TokenReply, *, asked: str = "") -> None:
    """Store the tokens of a sign-in, as the callback does."""
    with Issued(reply) as issued:
        storing.store(account, issued, asked=asked)


def user_with_wallet() -> Any:
    """Ada as a sign-in leaves her: she may see her balance and spend from it."""
    user = get_user_model().objects.create_user("ada")
    said = TokenReply(
        access_token="token",
        refresh_token="refresh",
        id_token=None,
        expires_in=3600,
        scope="credits.read credits.spend",
    )
    store_tokens(ProviderAccount.objects.create(user=user, external_id="usr_ada"), said)
    return user
