"""The name of a user's wallet, for keys of a cache that several tenants may share."""

from hashlib import sha256
from typing import Any

from django.db import connections

from django_quota.models import PROVIDER, ProviderAccount

from .places import database_of

#: The attribute of a user object that stores the name.
_REMEMBERED = "_django_quota_wallet"


def wallet_of(user: Any, *, anew: bool = False) -> str:
    """Return the name of `user`'s wallet.

    It is a hash of the database, the schema, the user, the account and the `sub`, because in
    another tenant the user's primary key alone is another person's.

    It makes at most one query, and stores the result on the user object, as `lookup.token_row`
    does. With `anew` it always makes the query. Raises what `database_of` raises.
    """
    known: str | None = getattr(user, _REMEMBERED, None)
    if known is not None and not anew:
        return known
    alias = database_of(user)
    accounts = ProviderAccount.objects.using(alias).filter(user_id=user.pk, provider=PROVIDER)
    found = accounts.values_list("pk", "external_id").first() if user.pk is not None else None
    return remember_wallet(user, alias, *(found or (None, "")))


def remember_wallet(user: Any, alias: str, account: Any, external_id: str) -> str:
    """Store on the user object, and return, the name of the wallet that was read just now.

    `account` is the primary key of its account, None if the user has none.
    """
    wallet = name_in_database(alias, str(user.pk), account, external_id)
    setattr(user, _REMEMBERED, wallet)
    return wallet


def name_in_database(alias: str, *parts: Any) -> str:
    """Return a name for `parts`, which in another database or schema have another name."""
    connection = connections[alias]
    database = [str(connection.settings_dict.get(name)) for name in ("HOST", "PORT", "NAME")]
    schema = getattr(connection, "schema_name", "")  # set by django-tenants
    return sha256(repr((alias, database, schema, *parts)).encode()).hexdigest()
