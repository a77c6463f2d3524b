"""The token row of a user: the one query that every billed call makes.

To build and to compile a query takes as long as to ask the database, so this one is compiled once.
"""

from typing import Any

from django.db import connections, router
from django.views.decorators.debug import sensitive_variables

from .models import PROVIDER, ProviderAccount, QuotaToken, require_user

__all__ = ["token_row"]

#: What a call has to know of its token; all else is deferred.
COLUMNS = ("access_token", "expires_at", "status", "last_failure")

#: Database -> the query, its SQL with the user and the provider as parameters, and its columns.
_compiled: dict[str, tuple[Any, str, list[Any]]] = {}


@sensitive_variables()
def token_row(user: Any) -> QuotaToken | None:
    """The row of `user` with COLUMNS, None if there is none; of the write database, as a replica
    that lags would serve spent tokens.

    Raises TypeError for anything but a user, TokenUnreadable.
    """
    require_user(user)
    if user.pk is None:
        return None
    connection = connections[router.db_for_write(QuotaToken)]
    if connection.alias not in _compiled:
        _compiled[connection.alias] = _compile(user.pk, connection.alias)
    query, sql, columns = _compiled[connection.alias]
    key = ProviderAccount._meta.get_field("user").get_db_prep_value(user.pk, connection)
    with connection.cursor() as cursor:
        cursor.execute(sql, (key, PROVIDER))
        found = cursor.fetchone()
    if found is None:
        return None
    # What the database gives becomes what the fields say, decrypted, as the ORM does it.
    compiler = query.get_compiler(connection=connection)
    (values,) = compiler.apply_converters([found], compiler.get_converters(columns))
    return QuotaToken.from_db(connection.alias, [c.target.attname for c in columns], values)


def _compile(key: Any, alias: str) -> tuple[Any, str, list[Any]]:
    # By two calls of `filter`: one would sort its conditions, and with them the parameters.
    rows = QuotaToken.objects.using(alias).filter(account__user_id=key)
    query = rows.filter(account__provider=PROVIDER).defer(None).only(*COLUMNS).query
    compiler = query.get_compiler(alias)
    sql, _parameters = compiler.as_sql()
    return query, sql, [column for column, *_names in compiler.select]
