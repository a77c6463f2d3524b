"""Find, create or link the local user of an identity that Quota has verified.

The pair (provider, sub) identifies a person. An e-mail address never signs anybody in by itself.
"""

import hashlib
import re
from collections.abc import Iterator
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.db import DataError, IntegrityError, models, router, transaction
from django.utils import timezone

from django_quota.oidc.id_token import Identity

from .conf import get_settings
from .exceptions import SignInFailed
from .models import PROVIDER, ProviderAccount
from .signals import account_linked


def account_of(user: Any) -> ProviderAccount | None:
    """Return the Quota account of `user`, connected or not; None if there is none."""
    # The user's own database, unless a router decides otherwise: in another database the same
    # primary key is another person's.
    accounts = ProviderAccount.objects.using(router.db_for_write(ProviderAccount, instance=user))
    return accounts.filter(user_id=user.pk, provider=PROVIDER).first()


def find(external_id: str, *, with_token: bool = False) -> ProviderAccount | None:
    """Return the account with this `sub`, with its user loaded; None if there is none.

    With `with_token`, its token row is loaded, too, for `django_quota.tokens.storing`.
    """
    related = ("user", "token") if with_token else ("user",)
    accounts = ProviderAccount.objects.using(router.db_for_write(ProviderAccount))
    found = accounts.select_related(*related).filter(provider=PROVIDER, external_id=external_id)
    account = next(iter(found), None)  # one at most, so that there is nothing to sort
    # A `sub` is case sensitive (OpenID Connect Core 1.0 section 2), but MariaDB ignores case until
    # `migrate` has set the column's collation. Another case is another person.
    return account if account is not None and account.external_id == external_id else None


def record_sign_in(account: ProviderAccount, identity: Identity) -> None:
    """Save in `account` what Quota says about the person. The user's own fields do not change.

    Raises SignInFailed `account_conflict` if the account was deleted at this moment: saving it
    would bring it back.
    """
    values: dict[str, Any] = {
        "issuer": identity.issuer,
        "email": identity.email,
        "name": identity.name,
        "picture": identity.picture,
        "last_sign_in_at": timezone.now(),
    }
    for name, value in values.items():
        setattr(account, name, value)
    if account._state.adding:
        account.save()
        # A new account has no token row, so nobody needs to look for it.
        ProviderAccount._meta.get_field("token").set_cached_value(account, None)
        return
    rows = ProviderAccount.objects.using(account._state.db).filter(pk=account.pk)
    if not rows.update(**values):
        raise SignInFailed("account_conflict", "the account was removed just now")


def candidates_by_email(identity: Identity) -> "models.QuerySet[Any]":
    """Return the users whom QUOTA_LINK_BY_EMAIL allows to link with this first sign-in.

    Only a verified address counts. A user with special rights is never linked: anybody who gets
    the address verified at Quota would get those rights too.
    """
    users = get_user_model()._default_manager
    if not get_settings().link_by_email:
        return users.none()
    free = users.filter(quota_accounts__isnull=True)
    return free.filter(pk__in=[user.pk for user in _with_email(identity) if _is_ordinary(user)])


def is_email_known(identity: Identity) -> bool:
    """Return True if a user here has the address that Quota has verified for this person."""
    return any(True for _user in _with_email(identity))


def _with_email(identity: Identity) -> "Iterator[Any]":
    """Yield the users with the verified address of `identity`; none if it is not verified."""
    model = get_user_model()
    column = email_column(model)
    if column is None or not (identity.email and identity.email_verified):
        return
    for user in model._default_manager.filter(**{f"{column.name}__iexact": identity.email}):
        # Databases also match other letters, such as a dotless i or an accent (CVE-2019-19844).
        if _same_email(getattr(user, column.name), identity.email):
            yield user


def _is_ordinary(user: Any) -> bool:
    """Return True if the user is active and has no rights beyond those of every user.

    This reads attributes, not columns: in the example of Django's documentation, `is_staff` is a
    property.
    """
    flags = getattr(user, "is_staff", False) or getattr(user, "is_superuser", False)
    rights = [getattr(user, name, None) for name in ("groups", "user_permissions")]
    granted = any(right is not None and right.exists() for right in rights)
    return bool(getattr(user, "is_active", True)) and not flags and not granted


def _same_email(one: str, other: str) -> bool:
    """Compare the addresses without regard to the case of ASCII letters.

    `bytes.lower` changes ASCII letters only.
    """
    return one.encode().lower() == other.encode().lower()


def link(user: Any, identity: Identity) -> ProviderAccount:
    """Make `identity` the Quota account of an existing user.

    The user's password becomes unusable, which ends their other sessions: the person who chose it
    may not own the address, and could use this person's wallet. `account_linked` is sent in the
    same transaction. Raises SignInFailed `account_conflict` if the user or the identity was linked
    meanwhile.
    """
    account = ProviderAccount(user=user, external_id=identity.subject)
    try:
        with transaction.atomic(using=router.db_for_write(ProviderAccount)):
            user.set_unusable_password()
            user.save(update_fields=["password"])
            record_sign_in(account, identity)
            account_linked.send(sender=ProviderAccount, user=user, account=account)
    except IntegrityError:
        raise SignInFailed(
            "account_conflict", "this user or this Quota account was linked just now"
        ) from None
    return account


def create(identity: Identity, create_user: Any) -> ProviderAccount:
    """Create a user with `create_user(claims)`, and their account, in one transaction.

    If a person makes two first sign-ins at once, both return the same account. Raises SignInFailed
    `account_conflict` if another user has the value of a unique field, such as the e-mail address.
    """
    try:
        with transaction.atomic(using=router.db_for_write(ProviderAccount)):
            account = ProviderAccount(
                user=create_user(identity.claims),
                external_id=identity.subject,
                created_user=True,
            )
            record_sign_in(account, identity)
    except (IntegrityError, DataError, ValidationError):
        winner = find(identity.subject)
        if winner is None:
            raise SignInFailed(
                "account_conflict",
                "the database refused a new user: another user has the same unique e-mail address "
                "(let that user connect the wallet, or see QUOTA_LINK_BY_EMAIL), or the user model "
                "requires other fields (override QuotaBackend.create_user)",
            ) from None
        return winner
    return account


def username_for(subject: str, suffix: str = "") -> str:
    """Return a stable username without personal data, because usernames are often public."""
    model = get_user_model()
    longest = getattr(model._meta.get_field(model.USERNAME_FIELD), "max_length", None) or 150
    name = f"quota-{subject}"
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or len(name) > longest - len(suffix):
        name = f"quota-{hashlib.sha256(subject.encode()).hexdigest()}"
    return name[: longest - len(suffix)] + suffix


def new_user(identity: Identity, username: str) -> AbstractBaseUser:
    """Save and return a user without a password, for any user model.

    The user gets a verified address only: an unverified one may be another person's. Raises
    SignInFailed `email_required` if the user model requires an address (it is the username, or
    unique and not null) and Quota gave no verified one.
    """
    email = identity.email if identity.email_verified else ""
    model = get_user_model()
    field: Any = model._meta.get_field(model.USERNAME_FIELD)
    # Raises ValidationError if, say, usernames are numbers; each database raises another error.
    values: dict[str, Any] = {model.USERNAME_FIELD: field.to_python(username)}
    column = email_column(model)
    if column is not None:
        by_email = column.name == model.USERNAME_FIELD
        if not email and (by_email or (column.unique and not column.null)):
            raise SignInFailed(
                "email_required",
                "the user model requires an e-mail address, and Quota gave no verified one",
            )
        # A unique column can hold NULL many times, but "" only once.
        values[column.name] = email or ("" if not column.null else None)
    user = model(**values)
    user.set_unusable_password()
    user.save()
    return user


def email_column(model: Any) -> "models.Field[Any, Any] | None":
    """Return the user model's field for the e-mail address.

    It is EMAIL_FIELD, else the username if that is an EmailField, else None.
    """
    name = model.get_email_field_name()
    email = next((field for field in model._meta.fields if field.name == name), None)
    username: models.Field[Any, Any] = model._meta.get_field(model.USERNAME_FIELD)
    return username if email is None and isinstance(username, models.EmailField) else email


def has_password(user: Any) -> bool:
    """Return True if the user can sign in here with a password."""
    return bool(user.password) and user.has_usable_password()


def may_sign_in(account: ProviderAccount) -> bool:
    """Return True if Quota may sign the user of `account` in.

    False if the user has a password and has only connected a wallet: a sign-in with the wallet
    would bypass their second factor. With QUOTA_CONNECT_SIGNS_IN it is always True.
    """
    return account.signs_in or connecting_allows_sign_in(account.user)


def connecting_allows_sign_in(user: Any) -> bool:
    """Return True if `user` may sign in here with a wallet that they have only connected."""
    return get_settings().connect_signs_in or not has_password(user)
