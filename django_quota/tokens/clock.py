"""The database's clock, which all hosts share, and the age of a time by any clock.

The clocks of hosts differ by seconds. One host writes when a token expires and when a lease ends,
and another host compares these times. So they are by the database's clock.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from django.conf import settings
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Expression, FloatField

#: Seconds, or a timedelta.
Span = TypeVar("Span", float, timedelta)

#: Seconds by which a reading may be late, well below the margin of a lease.
PRECISION = 0.5


#: Seconds since 1970. On PostgreSQL, NOW() is the start of the transaction. On MariaDB,
#: UNIX_TIMESTAMP() is ambiguous in the hour that a time zone repeats.
SQL = {
    "postgresql": "EXTRACT(EPOCH FROM STATEMENT_TIMESTAMP())::float8",
    "mysql": "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) / 1e6",
    "sqlite": "(JULIANDAY('now') - 2440587.5) * 86400.0",
}


class DatabaseTime(Expression):
    """Seconds since 1970 by the database's clock, at the start of the statement.

    Do not use it in a statement that waits for a lock.
    """

    output_field = FloatField()

    def as_sql(self, compiler: Any, connection: BaseDatabaseWrapper) -> tuple[str, tuple[()]]:
        """Return the SQL of the vendor. Django's `Now()` is a local time on MariaDB."""
        return SQL[connection.vendor], ()


@dataclass(frozen=True)
class Clock:
    """The database's clock, read once and continued by the monotonic clock of this process.

    It is never ahead of the database, so no lease is taken over too early. It is behind by the time
    that the database's answer took.
    """

    #: Seconds since 1970, by the database.
    read: float
    #: `time.monotonic()` when the answer arrived.
    at: float

    @classmethod
    def of(cls, alias: str) -> "Clock":
        """Read the clock of the database `alias`.

        It makes one query, or up to three if the answers are late. Raises the errors of a query.
        """
        connection = connections[alias]
        with connection.cursor() as cursor:
            for _attempt in range(3):
                began = time.monotonic()
                cursor.execute(f"SELECT {SQL[connection.vendor]}")
                clock = cls(float(cursor.fetchone()[0]), time.monotonic())
                if clock.at < began + PRECISION:
                    break
        return clock

    def now(self) -> datetime:
        """Return the time now, aware or naive according to USE_TZ."""
        return self.when(time.monotonic())

    def when(self, moment: float) -> datetime:
        """Return the time at which `time.monotonic()` was `moment`."""
        zone = UTC if settings.USE_TZ else None
        return datetime.fromtimestamp(self.read, zone) + timedelta(seconds=moment - self.at)


def is_recent(age: Span, within: Span, *, ahead: Span | None = None) -> bool:
    """Return True if `age`, the time since something happened, is below `within`.

    A negative age is not recent: the clock was set back since then, and the age may stay negative
    for hours. `ahead` is how far the clock of another host may be ahead of this one, by default
    not at all.
    """
    return -(age * 0 if ahead is None else ahead) <= age < within
