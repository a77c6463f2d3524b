"""Connecting a wallet to a user who is signed in, and disconnecting it."""

from typing import Any

from django.db import IntegrityError, router, transaction

from django_quota.tokens import endings
from django_quota.tokens.places import database_of

from .accounts import account_of, find, has_password
from .exceptions import SignInFailed
from .models import PROVIDER, ProviderAccount
from .signals import wallet_disconnected


def connect(user: Any, *, external_id: str, issuer: str, replaces: str = "") -> ProviderAccount:
    """Make `external_id` the wallet of `user`, who is signed in already.

    `replaces` is the `external_id` of the wallet that the user has agreed to replace. Raises
    SignInFailed with one of these codes:

    * `account_in_use`: the wallet belongs to another user.
    * `wallet_already_connected`: the user has a wallet other than `replaces`.
    * `account_conflict`: the user or the wallet was connected at this very moment.
    """
    account = find(external_id)
    if account is not None and account.user_id != user.pk:
        raise SignInFailed("account_in_use", "this Quota account belongs to another user here")
    if account is not None:
        return account
    old = account_of(user)
    if old is not None and old.external_id != replaces:
        raise SignInFailed("wallet_already_connected", "the user has another wallet connected")
    try:
        return _replace(old, user=user, external_id=external_id, issuer=issuer)
    except IntegrityError:
        raise SignInFailed(
            "account_conflict", "this user or this wallet was connected just now"
        ) from None


def _replace(old: ProviderAccount | None, **values: Any) -> ProviderAccount:
    """Create the account with `values`. Delete `old` with its tokens."""
    if old is not None:
        # In a transaction of its own, because it waits for a renewal that is being saved. It
        # queues the refresh token for revocation.
        for row in endings.token_rows(values["user"]):
            endings.wipe(row)
    with transaction.atomic(using=router.db_for_write(ProviderAccount)):
        if old is not None:
            old.delete()
        return ProviderAccount.objects.create(
            **values,
            # If the old link was the user's only way to sign in, the new one is.
            created_user=old is not None and old.created_user,
            # `may_sign_in` decides at each sign-in about the rest: the user's password and the
            # setting may change.
            signs_in=old is not None and old.signs_in,
        )


def disconnect(user: Any) -> bool:
    """Delete the tokens of `user`'s wallet, and queue their revocation at Quota.

    The link is deleted too, because it may lead to another person's Quota account, with which that
    person could sign in as this user. It stays only if a Quota sign-in created the user and the
    user has no password: they have no other way to sign in. Returns True if the link stays.

    Raises ProviderUnavailable if a token row stays locked; nothing is deleted then.
    """
    alias = database_of(user)
    links = ProviderAccount.objects.using(alias).filter(user_id=user.pk, provider=PROVIDER)
    removed = links if has_password(user) else links.filter(created_user=False)
    endings.wipe_all(endings.token_rows(user), alias, also=removed.delete)
    wallet_disconnected.send(sender=ProviderAccount, user=user)
    return links.exists()


def wipe_tokens(user: Any, *, grant: int) -> None:
    """Delete the tokens of `user` that come from the sign-in `grant`, which Quota has ended.

    Tokens of a later sign-in stay, and so does the link: only Quota's side has ended.

    Raises ProviderUnavailable if a token row stays locked.
    """
    for seen in endings.token_rows(user):
        if endings.wipe(seen, if_still=lambda row: row.grant == grant and row.needs_sign_in):
            wallet_disconnected.send(sender=ProviderAccount, user=user)
