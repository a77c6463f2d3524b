"""The ends of a connection: its tokens are deleted, or its user must sign in again.

Each function waits for the lock of the row, a few seconds at most. So it takes effect before or
after a renewal or a sign-in, never in the middle of one.
"""

from collections.abc import Callable, Iterable
from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from django_quota.models import PROVIDER, QuotaToken

from . import locking
from .places import database_of


def token_rows(user: Any) -> "QuerySet[QuotaToken]":
    """Return the token rows of `user`, with their identity. Raises what `database_of` raises."""
    rows = QuotaToken.objects.with_identity(database_of(user))
    return rows.filter(account__user_id=user.pk, account__provider=PROVIDER)


def wipe(seen: QuotaToken, *, if_still: Callable[[QuotaToken], bool] | None = None) -> bool:
    """Delete the row `seen`, which queues its refresh token for revocation.

    Returns False if the row is gone, or if `if_still` returns False for it under the lock. Raises
    ProviderUnavailable if the row stays locked.
    """
    alias, found = locking.database(seen), False

    def work() -> None:
        nonlocal found
        with locking.locked(seen) as row:
            if row is None:
                # A first attempt may have deleted the row and lost the confirmation of the commit.
                # So `found` keeps the value of that attempt.
                return
            found = if_still is None or if_still(row)
            if found:
                row.delete(using=alias)

    locking.under_lock(work, alias)
    return found


def wipe_all(rows: Iterable[QuotaToken], alias: str, *, also: Callable[[], object]) -> None:
    """Delete all `rows` of the database `alias` and call `also`, in one transaction.

    Raises ProviderUnavailable if a row stays locked; nothing is deleted then.
    """
    seen = list(rows)

    def work() -> None:
        # `locked` writes first: on SQLite, a transaction that reads first may fail to write.
        with transaction.atomic(using=alias):
            for each in seen:
                with locking.locked(each) as row:
                    if row is not None:
                        row.delete(using=alias)
            also()

    locking.under_lock(work, alias)


def require_sign_in(seen: QuotaToken, reason: str) -> bool:
    """Mark the row `seen`, so that its user must sign in again. Returns False if it is gone.

    The tokens stay until a sign-in supersedes them. Raises ProviderUnavailable if the row stays
    locked.
    """
    alias = locking.database(seen)

    def work() -> bool:
        with locking.locked(seen) as row:
            if row is None:
                return False
            row.status = QuotaToken.Status.REAUTHENTICATION_REQUIRED
            row.last_failure = reason
            row.version += 1  # a renewal under way must not undo this
            row.save(using=alias, update_fields=["status", "last_failure", "version"])
            return True

    return locking.under_lock(work, alias)
