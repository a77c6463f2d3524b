"""The rows of a sign-in."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.db import transaction
from django.utils import timezone

from benchmarks.sign_in.floor import client
from benchmarks.sign_in.floor.models import Account, Token


def write(claims: Mapping[str, Any], reply: Mapping[str, Any]) -> Any:
    """Write what a validated sign-in says; the user."""
    now = timezone.now()
    person = {
        "issuer": claims["iss"],
        "email": claims["email"],
        "name": claims["name"],
        "last_sign_in_at": now,
    }
    tokens = {
        "access_token": reply["access_token"],
        "refresh_token": reply["refresh_token"],
        "id_token": reply["id_token"],
        "scope": reply["scope"],
        "expires_at": now + timedelta(seconds=reply["expires_in"]),
        "updated_at": now,
    }
    with transaction.atomic():
        account = Account.objects.select_related("user").filter(sub=claims["sub"]).first()
        if account is None:
            users = get_user_model().objects
            user = users.create_user(username=claims["sub"], email=claims["email"])
            account = Account.objects.create(user=user, sub=claims["sub"], **person)
            Token.objects.create(account=account, **tokens)
        else:
            Account.objects.filter(pk=account.pk).update(**person)
            Token.objects.filter(account_id=account.pk).update(**tokens)
    return account.user


def access_token(user: Any) -> str:
    """The user's access token, renewed if it has expired."""
    token = Token.objects.only("access_token", "expires_at").get(account__user_id=user.pk)
    if token.expires_at > timezone.now():
        return str(token.access_token)
    return renew(token.pk)


def renew(pk: int) -> str:
    """The first caller holds the row's lock while the provider is asked; the others wait for it,
    look again, and find the new token."""
    with transaction.atomic():
        names = ("access_token", "refresh_token", "expires_at", "updated_at")
        token = Token.objects.select_for_update().only(*names).get(pk=pk)
        now = timezone.now()
        if token.expires_at <= now:
            reply = client.refresh(token.refresh_token)
            token.access_token, token.refresh_token = reply["access_token"], reply["refresh_token"]
            token.expires_at = now + timedelta(seconds=reply["expires_in"])
            token.updated_at = now
            token.save(update_fields=names)
    return str(token.access_token)
