"""From an identity that Quota vouches for to a local user, and which wallet is whose.

(provider, sub) is the identity. An e-mail address never signs anybody in by itself.
"""

import hashlib
import re
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.db import (
    DataError,
    IntegrityError,
    OperationalError,
    models,
    router,
    transaction,
)
from django.utils import timezone

from .conf import get_settings
from .exceptions import ProviderUnavailable, SignInFailed
from .id_token import Identity
from .locking import locked, patiently
from .models import PROVIDER, ProviderAccount, QuotaToken
from .signals import wallet_disconnected
from .tokens import LOCK_PATIENCE

__all__ = [
    "account_of",
    "candidates_by_email",
    "connect",
    "create",
    "disconnect",
    "find",
    "link",
    "new_user",
    "record_sign_in",
    "username_for",
    "wipe_tokens",
]

T = TypeVar("T")


def account_of(user: Any) -> ProviderAccount | None:
    """The Quota account of `user`, connected or not."""
    return ProviderAccount.objects.filter(user_id=user.pk, provider=PROVIDER).first()


def find(external_id: str) -> ProviderAccount | None:
    """The account with this `sub`, its user with it."""
    account = (
        ProviderAccount.objects.using(router.db_for_write(ProviderAccount))
        .select_related("user")
        .filter(provider=PROVIDER, external_id=external_id)
        .first()
    )
    # MariaDB compares without regard to case; a `sub` is case sensitive (OpenID Connect Core 1.0
    # section 2), and another person's is not this one's.
    return account if account is not None and account.external_id == external_id else None


def record_sign_in(account: ProviderAccount, identity: Identity) -> None:
    """Note what Quota says about the person now. The user's own fields are the project's.

    Raises SignInFailed `account_conflict` if the account is gone: it was disconnected, or its user
    deleted, at this moment, and saving it would bring it back.
    """
    noted: dict[str, Any] = {
        "issuer": identity.issuer,
        "email": identity.email,
        "name": identity.name,
        "picture": identity.picture,
        "last_sign_in_at": timezone.now(),
    }
    for name, value in noted.items():
        setattr(account, name, value)
    if account._state.adding:
        account.save()
    elif not ProviderAccount.objects.using(account._state.db).filter(pk=account.pk).update(**noted):
        raise SignInFailed("account_conflict", "the account was removed just now")


def candidates_by_email(identity: Identity) -> "models.QuerySet[Any]":
    """Users whom QUOTA_LINK_BY_EMAIL allows to link with this first sign-in.

    Only a verified address counts, and never a user with rights beyond their own: whoever can
    get an address verified at Quota would get those too.
    """
    model = get_user_model()
    column = _email_column(model)
    wanted = get_settings().link_by_email and identity.email and identity.email_verified
    if column is None or not wanted:
        return model._default_manager.none()
    users = model._default_manager.filter(quota_accounts__isnull=True)
    alike = users.filter(**{f"{column.name}__iexact": identity.email})
    # Databases take other letters for the same, too: a dotless i, an accent (CVE-2019-19844).
    same = [
        user.pk
        for user in alike
        if _same_email(getattr(user, column.name), identity.email) and _is_ordinary(user)
    ]
    return users.filter(pk__in=same)


def _is_ordinary(user: Any) -> bool:
    """Active, and without any right beyond what anybody has. By what the user says and not by
    columns: in the example of Django's own documentation `is_staff` is computed."""
    flags = getattr(user, "is_staff", False) or getattr(user, "is_superuser", False)
    rights = [getattr(user, name, None) for name in ("groups", "user_permissions")]
    granted = any(right is not None and right.exists() for right in rights)
    return bool(getattr(user, "is_active", True)) and not flags and not granted


def _same_email(one: str, other: str) -> bool:
    """Equal but for the case of ASCII letters, the only ones that bytes have."""
    return one.encode().lower() == other.encode().lower()


def link(user: Any, identity: Identity) -> ProviderAccount:
    """Make `identity` the Quota account of an existing user.

    Their password ends, and with it their other sessions: nobody has shown that whoever chose it
    owns the address, and it would open this person's wallet. Raises SignInFailed
    `account_conflict` if either is taken meanwhile.
    """
    account = ProviderAccount(user=user, external_id=identity.subject)
    try:
        with transaction.atomic(using=router.db_for_write(ProviderAccount)):
            user.set_unusable_password()
            user.save(update_fields=["password"])
            record_sign_in(account, identity)
    except IntegrityError:
        raise SignInFailed(
            "account_conflict", "this user or this Quota account was linked just now"
        ) from None
    return account


def create(identity: Identity, create_user: Any) -> ProviderAccount:
    """A new user, made by `create_user(claims)`, with their account; both or neither.

    Two first sign-ins of one person at once end with one user: the loser of the race is sent to
    the winner's. Raises SignInFailed `account_conflict` if a unique field of the user model (an
    e-mail address, say) is taken by somebody else.
    """
    try:
        with transaction.atomic(using=router.db_for_write(ProviderAccount)):
            account = ProviderAccount(
                user=create_user(identity.claims), external_id=identity.subject
            )
            record_sign_in(account, identity)
    except (IntegrityError, DataError, ValidationError):
        winner = find(identity.subject)
        if winner is None:
            raise SignInFailed(
                "account_conflict",
                "the database refused a new user: an e-mail that must be unique is taken (let "
                "that user connect the wallet, or see QUOTA_LINK_BY_EMAIL), or the user model "
                "needs other fields (override QuotaBackend.create_user)",
            ) from None
        return winner
    return account


def username_for(subject: str, suffix: str = "") -> str:
    """A stable username that says nothing about the person: usernames are often public."""
    model = get_user_model()
    longest = getattr(model._meta.get_field(model.USERNAME_FIELD), "max_length", None) or 150
    name = f"quota-{subject}"
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or len(name) > longest - len(suffix):
        name = f"quota-{hashlib.sha256(subject.encode()).hexdigest()}"
    return name[: longest - len(suffix)] + suffix


def new_user(identity: Identity, username: str) -> AbstractBaseUser:
    """A saved user without a password, for any user model.

    Only a verified address becomes the user's: with any other, a stranger could take that of
    somebody else. Raises SignInFailed `email_required` where every user has an address of their
    own, because they sign in by it or it is unique, and Quota gave no verified one.
    """
    email = identity.email if identity.email_verified else ""
    model = get_user_model()
    values: dict[str, Any] = {model.USERNAME_FIELD: username}
    column = _email_column(model)
    if column is not None:
        by_email = column.name == model.USERNAME_FIELD
        if not email and (by_email or (column.unique and not column.null)):
            raise SignInFailed(
                "email_required",
                "users have an address of their own here, and Quota gave no verified address",
            )
        # Of NULL a unique column may have many, of "" only one.
        values[column.name] = email or ("" if not column.null else None)
    user = model(**values)
    user.set_unusable_password()
    user.save()
    return user


def _email_column(model: Any) -> "models.Field[Any, Any] | None":
    """Where `model` keeps the e-mail address, which may be its username; None if it has none."""
    username: models.Field[Any, Any] = model._meta.get_field(model.USERNAME_FIELD)
    if isinstance(username, models.EmailField):
        return username
    name = model.get_email_field_name()
    return next((field for field in model._meta.fields if field.name == name), None)


def connect(user: Any, *, external_id: str, issuer: str, replaces: str = "") -> ProviderAccount:
    """Make the wallet `external_id` the one of `user`, who is signed in already.

    Raises SignInFailed `account_in_use` if it is somebody else's, `wallet_already_connected` if
    the user has another one than the one that they have agreed to replace, `account_conflict` if
    either was connected at this very moment.
    """
    account = find(external_id)
    if account is not None and account.user_id != user.pk:
        raise SignInFailed("account_in_use", "this Quota account belongs to another user here")
    if account is None:
        other = account_of(user)
        if other is not None and other.external_id != replaces:
            raise SignInFailed("wallet_already_connected", "the user has another wallet connected")
        try:
            with transaction.atomic(using=router.db_for_write(ProviderAccount)):
                if other is not None:
                    other.delete()  # its refresh token is queued for revocation
                account = ProviderAccount.objects.create(
                    user=user, external_id=external_id, issuer=issuer
                )
        except IntegrityError:
            raise SignInFailed(
                "account_conflict", "this user or this wallet was connected just now"
            ) from None
    return account


def disconnect(user: Any) -> None:
    """Wipe the tokens of `user`'s wallet, and queue their revocation at Quota.

    The link stays for whoever has no other way in. A user with a password gets rid of it, too: it
    may be to somebody else's Quota account, who could go on signing in as this user.

    Raises ProviderUnavailable if a token row stays locked; nothing is wiped then.
    """
    rows = QuotaToken.objects.filter(account__user_id=user.pk, account__provider=PROVIDER)
    keys = list(rows.values_list("pk", flat=True))

    def wipe() -> None:
        # Each row locked first: on SQLite a transaction that reads first may not write any more.
        with transaction.atomic(using=router.db_for_write(QuotaToken)):
            for key in keys:
                with locked(key) as row:
                    if row is not None:
                        row.delete()
            if user.password and user.has_usable_password():
                ProviderAccount.objects.filter(user_id=user.pk, provider=PROVIDER).delete()

    _under_lock(wipe)
    wallet_disconnected.send(sender=ProviderAccount, user=user)


def wipe_tokens(user: Any, *, unless_newer_than: datetime) -> None:
    """Wipe the tokens of a wallet that was disconnected at Quota at that moment.

    Not those that were written since: an old event that is delivered late must not end a connection
    that was made, or has worked, after it. The link stays: only Quota's side has gone.

    Raises ProviderUnavailable if a token row stays locked.
    """

    def wipe(pk: Any) -> bool:
        with locked(pk) as row:  # a sign-in at this moment comes before it or after, not between
            if row is None or row.updated_at > unless_newer_than:
                return False
            row.delete()
            return True

    rows = QuotaToken.objects.filter(account__user_id=user.pk, account__provider=PROVIDER)
    for pk in rows.values_list("pk", flat=True):
        if _under_lock(partial(wipe, pk)):
            wallet_disconnected.send(sender=ProviderAccount, user=user)


def _under_lock(wipe: Callable[[], T]) -> T:
    try:
        return patiently(wipe, LOCK_PATIENCE)
    except OperationalError:
        raise ProviderUnavailable(
            "The database did not give the token row in time; disconnect again soon.",
            request_sent=False,
        ) from None
