"""The lock of a token row. The database waits for it, for a few seconds at most."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from django.db import Error, InternalError, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import F

from django_quota.exceptions import ConfigurationError, ProviderUnavailable
from django_quota.models import QuotaToken, of_same_account

from .clock import PRECISION, SQL, Clock
from .first_look import forget as forget_first_look

T = TypeVar("T")

#: What Django raises if a write fails for a temporary reason: a locked row, a full disk, a server
#: that is away or read-only, such as a standby. For the last, PostgreSQL raises InternalError
#: (SQLSTATE 25006), the others OperationalError. A missing table raises ProgrammingError, which is
#: a fault of the project and not in this list.
REFUSALS = (OperationalError, InternalError)

#: Seconds to wait for the lock of a row, which the caller itself may hold.
LOCK_WAIT = 2.0
#: Seconds between two attempts, which grow from the first to the second number.
PAUSE = (0.01, 0.1)


class RowLocked(ProviderUnavailable):
    """The row stayed locked, or the database is away. Nothing was sent to Quota."""

    def __init__(self) -> None:
        super().__init__(
            "The token row stayed locked, or the database is away; try again soon.",
            request_sent=False,
        )


def pauses(
    seconds: float,
    lengths: tuple[float, float] | None = None,
    sleep: Callable[[float], object] | None = None,
) -> Iterator[None]:
    """Yield once, and again after pauses, until `seconds` are over.

    The pauses grow from the first of `lengths` to the second, by default those of PAUSE. `sleep`
    makes a pause, by default `time.sleep`.
    """
    give_up = time.monotonic() + seconds
    pause, longest = lengths or PAUSE
    while True:
        yield
        if time.monotonic() > give_up:
            return
        (sleep or time.sleep)(pause)
        pause = min(pause * 2, longest)


def retry(work: Callable[[], T], patience: float, *, alias: str, any_error: bool = False) -> T:
    """Call `work`, and repeat it for `patience` seconds while a row is locked or `alias` is away.

    With `any_error`, for what must be saved, repeat it after any error of the database: one that is
    read-only for a while reports another kind of error.
    """
    kind = Error if any_error else OperationalError
    for _attempt in pauses(patience):
        try:
            return work()
        except kind as error:
            last = error
            if not any_error:
                require_transactions(error)
            # Close it only if it is broken, not for its age: a pool may have no other one for us.
            connection = connections[alias]
            if connection.connection is not None and not connection.is_usable():
                connection.close()
    raise last


def under_lock(work: Callable[[], T], alias: str, patience: float | None = None) -> T:
    """Call `work`, which locks rows of the database `alias`.

    It is repeated for `patience` seconds (by default LOCK_WAIT) while a row is locked by others or
    the database is away. Raises RowLocked after that.
    """
    try:
        return retry(work, LOCK_WAIT if patience is None else patience, alias=alias)
    except REFUSALS:
        raise RowLocked from None


def require_transactions(error: Error) -> None:
    """Raise ConfigurationError if `error` says that the database allows no transactions."""
    if "statement pooling" in str(error):
        raise ConfigurationError(
            "PgBouncer's pool_mode is statement, which allows no transactions, so no token can be "
            "renewed; set it to transaction or session."
        ) from None


@contextmanager
def locked(seen: QuotaToken, *, skip_locked: bool = False) -> Iterator[QuotaToken | None]:
    """Lock the row `seen` for a short transaction, and yield it as it is now.

    It uses `select_for_update` by primary key, without a join (MariaDB would lock the other table's
    row too), in the database that `seen` was read from.

    Yields None if the row is gone, if it belongs to another account than `seen` (in the schema of
    another tenant, the same key is another person's row), or, with `skip_locked`, if it is locked.
    Otherwise it waits LOCK_WAIT seconds for the lock, and then raises OperationalError.
    """
    forget_first_look()
    alias = database(seen)
    connection = connections[alias]
    rows = QuotaToken.objects.with_identity(alias).filter(pk=seen.pk)
    nested = connection.in_atomic_block
    with transaction.atomic(using=alias):
        began = time.monotonic()
        if connection.vendor == "sqlite":
            # SQLite has no row locks. A transaction that writes first waits for the one write lock.
            # A transaction that reads first fails at once if another one has written since.
            rows.update(version=F("version"))
        with _bounded_wait(connection, nested=nested) as clock:
            row = rows.select_for_update(skip_locked=skip_locked).first()
        if row is not None:
            row.lock_waited = time.monotonic() - began
            row.clock = clock or Clock.of(alias)
        yield of_same_account(row, seen)


@contextmanager
def write_transaction(alias: str) -> Iterator[Clock]:
    """A short transaction for one write, which waits LOCK_WAIT seconds for the lock of its row.

    Yields the database's clock. Raises OperationalError if the row stays locked.
    """
    forget_first_look()
    connection = connections[alias]
    # On PostgreSQL the clock comes with the setting of `_bounded_wait`. Elsewhere read it before
    # the transaction: on SQLite, one that reads first may fail to write.
    clock = None if connection.vendor == "postgresql" else Clock.of(alias)
    nested = connection.in_atomic_block
    with transaction.atomic(using=alias), _bounded_wait(connection, nested=nested) as read:
        yield clock or read or Clock.of(alias)


@contextmanager
def _bounded_wait(connection: BaseDatabaseWrapper, *, nested: bool) -> Iterator[Any]:
    """Limit the wait of a statement for a lock to LOCK_WAIT seconds.

    The setting is restored, because a pooler gives the connection to others. SQLite has a limit of
    its own, `timeout`. On PostgreSQL it yields the database's clock, unless the answer was late.
    """
    if connection.vendor == "postgresql":
        # It holds until the end of the transaction, which may be the caller's.
        with connection.cursor() as cursor:
            began = time.monotonic()
            cursor.execute(
                "SELECT current_setting('lock_timeout'), set_config('lock_timeout', %s, true), "
                + SQL[connection.vendor],
                [f"{LOCK_WAIT * 1000:.0f}ms"],
            )
            before, _set, seconds = cursor.fetchone()
            at = time.monotonic()
            yield Clock(seconds, at) if at < began + PRECISION else None
            if nested:
                cursor.execute("SELECT set_config('lock_timeout', %s, true)", [before])
    elif getattr(connection, "mysql_is_mariadb", False):
        with connection.execute_wrapper(_for_this_statement):
            yield
    else:
        yield


def _for_this_statement(execute: Any, sql: str, *args: Any) -> Any:
    """Set the limit for this statement only. MariaDB takes whole seconds."""
    return execute(f"SET STATEMENT innodb_lock_wait_timeout={LOCK_WAIT:.0f} FOR {sql}", *args)


def database(row: QuotaToken) -> str:
    """Return the alias of the database that `row` was read from."""
    assert row._state.db is not None
    return row._state.db
