"""Run quota_reencrypt_tokens, five rows to a transaction, and die (SIGKILL) within the third."""

import os
import signal
from typing import Any

from django.core.management import call_command
from django.db import connection

from tests.helpers.programs import set_up

ROWS = 5
#: Transactions, each of which writes its rows in one statement.
TRANSACTIONS = 3

updates: list[str] = []


def die_at_the_last(execute: Any, sql: str, *args: Any) -> Any:
    result = execute(sql, *args)
    if sql.startswith("UPDATE") and "CASE" in sql:
        updates.append(sql)
    if len(updates) == TRANSACTIONS:
        os.kill(os.getpid(), signal.SIGKILL)
    return result


if __name__ == "__main__":
    set_up()
    from django_quota.tokens import reencryption

    reencryption.CHUNK = ROWS
    with connection.execute_wrapper(die_at_the_last):
        call_command("quota_reencrypt_tokens")
