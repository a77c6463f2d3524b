"""The ends of a connection: its tokens are deleted, or its user must sign in again.

Each function waits for the lock of the row, a few seconds at most. So it takes effect before or
after a renewal or a sign-in, never in the middle of one.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from django.db import IntegrityError, transaction
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
    decided: list[bool] = []
    locking.under_lock(partial(_wipe, seen, if_still, decided), locking.database(seen))
    return decided[-1:] == [True]


def _wipe(
    seen: QuotaToken, if_still: Callable[[QuotaToken], bool] | None, decided: list[bool]
) -> None:
    with locking.locked(seen) as row:
        # A first attempt may have deleted the row and lost the confirmation of the commit. Then
        # there is no row, and what that attempt has decided counts.
        if row is not None:
            decided.append(if_still is None or if_still(row))
            if decided[-1]:
                row.delete(using=locking.database(seen))


def wipe_all(rows: Iterable[QuotaToken], alias: str, *, also: Callable[[], object]) -> None:
    """Delete all `rows` of the database `alias` and call `also`, in one transaction.

    Raises ProviderUnavailable if a row stays locked, or if a sign-in creates another one meanwhile;
    nothing is deleted then.
    """
    try:
        locking.under_lock(partial(_wipe_all, list(rows), alias, also), alias)
    except IntegrityError:  # the new row refers to what `also` deletes
        raise locking.RowLocked from None


def _wipe_all(rows: list[QuotaToken], alias: str, also: Callable[[], object]) -> None:
    # `locked` writes first: on SQLite, a transaction that reads first may fail to write.
    with transaction.atomic(using=alias):
        for each in rows:
            with locking.locked(each) as row:
                if row is not None:
                    row.delete(using=alias)
        also()


def require_sign_in(seen: QuotaToken, reason: str) -> bool:
    """Mark the row `seen`, so that its user must sign in again. Returns False if it is gone.

    The tokens stay until a sign-in supersedes them. Raises ProviderUnavailable if the row stays
    locked.
    """
    alias = locking.database(seen)
    return locking.under_lock(partial(_require_sign_in, seen, reason, alias), alias)


def _require_sign_in(seen: QuotaToken, reason: str, alias: str) -> bool:
    with locking.locked(seen) as row:
        if row is None:
            return False
        row.status = QuotaToken.Status.REAUTHENTICATION_REQUIRED
        row.last_failure = reason
        row.version += 1  # a renewal under way must not undo this
        row.save(using=alias, update_fields=["status", "last_failure", "version"])
        return True
