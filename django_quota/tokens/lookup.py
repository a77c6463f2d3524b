"""Read the token row, by a compiled query that no result cache sees.

Every billed call makes this query, and a caller that waits for a renewal repeats it. Building and
compiling a query takes as long as running it, so each query is compiled once. It is run by a
cursor, so that no result cache of the ORM (django-cachalot, django-cacheops) stores a row, or
returns one that is older than the last commit.
"""

import time
from typing import Any

from django.db import connections, router
from django.db.models import F

from django_quota.models import PROVIDER, ProviderAccount, QuotaToken, of_same_account

from .clock import Clock, DatabaseTime
from .places import database_of
from .wallet_name import remember_wallet

#: The columns that a billed call needs; the others are deferred.
COLUMNS = ("access_token", "expires_at", "status", "last_failure")

#: What `QuotaToken.identity` needs in addition: attribute -> column of the account.
IDENTITY = {"account_user": "user_id", "account_external_id": "external_id"}

#: Database and conditions -> the query, its SQL with their values as parameters, and its columns.
_compiled: dict[tuple[str, ...], tuple[Any, str, list[Any]]] = {}


def token_row(user: Any) -> QuotaToken | None:
    """Return the row of `user`, with COLUMNS and the identity of its account; None if none.

    It reads the write database, because a replica that lags would return spent tokens. Raises what
    `database_of` raises.
    """
    alias = database_of(user)
    if user.pk is None:
        return None
    row = _row(alias, ("account", *COLUMNS), account__user_id=user.pk, account__provider=PROVIDER)
    if row is not None:
        remember_wallet(user, alias, row.account_id, row.account_external_id)
    return row


def token_row_of_account(account: ProviderAccount) -> QuotaToken | None:
    """Return the row of `account`, None if there is none."""
    # Pass the account to the router, which may not know the tenant in this thread.
    row = _row(router.db_for_write(QuotaToken, instance=account), (), account_id=account.pk)
    identity = (account.pk, account.user_id, account.external_id)
    return row if row is not None and row.identity == identity else None


def token_row_again(seen: QuotaToken) -> QuotaToken | None:
    """Return the row `seen` as it is now; None if it is gone or belongs to another account."""
    return of_same_account(_row(str(seen._state.db), (), pk=seen.pk), seen)


def _row(alias: str, columns: tuple[str, ...], **conditions: Any) -> QuotaToken | None:
    """Return the row that meets all conditions, with its identity and the database's time.

    `columns` are the columns to load; () loads all.
    """
    connection = connections[alias]
    known = (alias, *conditions)
    if known not in _compiled:
        _compiled[known] = _compile(alias, columns, conditions)
    query, sql, select = _compiled[known]
    parameters = [
        _field(name).get_db_prep_value(value, connection) for name, value in conditions.items()
    ]
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        found = cursor.fetchone()
    at = time.monotonic()
    if found is None:
        return None
    # Convert the values as the ORM does, according to the fields.
    compiler = query.get_compiler(connection=connection)
    (values,) = compiler.apply_converters([found], compiler.get_converters(select))
    *own, user, external_id, read = values
    row = QuotaToken.from_db(alias, [c.target.attname for c in select[: len(own)]], own)
    row.account_user, row.account_external_id = user, external_id
    row.clock = Clock(read, at)
    return row


def _compile(alias: str, columns: tuple[str, ...], conditions: dict[str, Any]) -> Any:
    rows = QuotaToken.objects.using(alias).only(*columns)
    # Call `filter` once for each condition: one call would sort them, and the SQL's parameters.
    for name, value in conditions.items():
        rows = rows.filter(**{name: value})
    rows = rows.annotate(**{name: F(f"account__{column}") for name, column in IDENTITY.items()})
    rows = rows.annotate(database_time=DatabaseTime())
    compiler = rows.query.get_compiler(alias)
    sql, _parameters = compiler.as_sql()
    return rows.query, sql, [column for column, *_names in compiler.select]


def _field(condition: str) -> Any:
    """Return the field that a condition compares."""
    model = ProviderAccount if condition.startswith("account__") else QuotaToken
    name = condition.removeprefix("account__")
    return model._meta.pk if name == "pk" else model._meta.get_field(name)
