"""Fills the tables with as many rows as a large site has, on any database."""

from django.contrib.auth import get_user_model
from django.db import connection, models

from django_quota.models import ProviderAccount, QuotaToken

#: Digits of the largest number of copies.
DIGITS = 6


def copy_rows(count: int) -> None:
    """Add `count` users with account and token, copies of the only user there is.

    `count` is at most a million. All tokens have the same ciphertext.
    """
    ten = " UNION ALL ".join(f"SELECT {n} AS digit" for n in range(10))
    digits = ", ".join(f"({ten}) d{place}" for place in range(DIGITS))
    number = " + ".join(f"{10**place} * d{place}.digit" for place in range(DIGITS))
    _copy(get_user_model(), {"username": number}, digits, f"{number} < {count}")
    _copy(
        ProviderAccount,
        {"user_id": "other.id", "external_id": "other.username"},
        "auth_user other",
        "other.id NOT IN (SELECT user_id FROM django_quota_provideraccount)",
    )
    _copy(
        QuotaToken,
        {"account_id": "other.id"},
        "django_quota_provideraccount other",
        "other.id NOT IN (SELECT account_id FROM django_quota_quotatoken)",
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
