"""Fills the tables with as many rows as a large site has, on any database."""

from django.contrib.auth import get_user_model
from django.db import connection, models

#: Digits of the largest number of copies.
DIGITS = 6


def copy_rows(count: int) -> None:
    """Add `count` users of this package with account and token, as `copy_people` does."""
    from django_quota.models import ProviderAccount, QuotaToken

    copy_people(count, ProviderAccount, "external_id", QuotaToken)


def copy_people(
    count: int, account: type[models.Model], subject: str, token: type[models.Model]
) -> None:
    """Add `count` users with account and token, copies of the first user there is.

    `count` is at most a million. All tokens have the same ciphertext. `subject` is the column of
    `account` that gets the user's name.
    """
    user = get_user_model()
    ten = " UNION ALL ".join(f"SELECT {n} AS digit" for n in range(10))
    digits = ", ".join(f"({ten}) d{place}" for place in range(DIGITS))
    number = " + ".join(f"{10**place} * d{place}.digit" for place in range(DIGITS))
    _copy(user, {"username": number}, digits, f"{number} < {count}")
    _copy(
        account,
        {"user_id": "other.id", subject: "other.username"},
        f"{user._meta.db_table} other",
        f"other.id NOT IN (SELECT user_id FROM {account._meta.db_table})",
    )
    _copy(
        token,
        {"account_id": "other.id"},
        f"{account._meta.db_table} other",
        f"other.id NOT IN (SELECT account_id FROM {token._meta.db_table})",
    )


def _copy(model: type[models.Model], changed: dict[str, str], source: str, where: str) -> None:
    """Insert copies of the first row of `model`, one for each row of `source`."""
    quote = connection.ops.quote_name
    table, key = model._meta.db_table, model._meta.pk
    columns = [str(field.column) for field in model._meta.concrete_fields if field is not key]
    values = [changed.get(column, f"one.{quote(column)}") for column in columns]
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} ({', '.join(map(quote, columns))}) SELECT {', '.join(values)} "
            f"FROM (SELECT * FROM {table} ORDER BY id LIMIT 1) one, {source} WHERE {where}"
        )
