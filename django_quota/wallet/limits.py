"""Limits of what AI calls may spend: for a block, for a request, and for a user's day.

Quota lists no prices (quota-protocol section 14) and reports what a call has cost at its end. So a
limit stops the next call, and cuts the streams that are running. A single call may pass it.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings as django_settings
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connections
from django.db.models import Sum
from django.http import HttpRequest
from django.utils import timezone

from django_quota.conf import get_settings
from django_quota.conf.functions import import_function
from django_quota.conf.spending import TASK, LimitsOfUser, SpendingLimits, is_limit, read_limits
from django_quota.exceptions import ConfigurationError, QuotaError, SpendingLimitReached
from django_quota.models import UsageRecord
from django_quota.money import whole_number
from django_quota.tokens.wallet_name import name_in_database

from . import caching
from .attribution import Bill, open_block

#: A stream looks at most this often, in seconds, at what other processes have spent.
LOOK_EVERY = 1.0
#: Seconds for which the counter of a day is kept: the day, and the streams that outlive it.
_KEEP_COUNTER = 2 * 86400


@contextmanager
def spending_limit(*, credits: int) -> Iterator[Bill]:
    """Send no more AI calls in a block once they have cost `credits` together.

    The next call then raises SpendingLimitReached before it is sent, and a stream that is running
    raises it to its reader. The block is like one of `billed_for`: tasks that are started inside
    belong to it, and so do threads that use a client made inside. Limits may be nested.

    Raises TypeError if `credits` is not a whole number, and ValueError if it is not above 0.
    """
    if type(credits) is not int:
        raise TypeError(f"spending_limit(credits=...) takes an int, not {type(credits).__name__}.")
    if not is_limit(credits):
        raise ValueError("spending_limit(credits=...) takes a number above 0.")
    with open_block(Bill(credits)) as bill:
        yield bill


class RequestBill(Bill):
    """The calls of one HTTP request that one user pays for."""

    kind = "request"


class DayBill(Bill):
    """What a user has spent today, in all processes.

    `spent` was read from the database when a call began. What is recorded after that is in a
    counter in the cache. A call is counted before its record is written, and the counter is read
    after the records. So no call is in both.
    """

    kind = "user_day"

    def __init__(self, limit: int, spent: int, counter: str, ends_at: datetime) -> None:
        super().__init__(limit)
        self.credits_used = self._spent = spent
        self.ends_at = ends_at
        self._counter = counter
        self._count = self._read_counter()
        self._looked_at = time.monotonic()

    def add(self, credits_used: int | None) -> None:
        """Add this call, for all processes."""
        super().add(credits_used)
        if credits_used is not None and credits_used > 0:
            caching.increase(self._counter, credits_used, _KEEP_COUNTER)

    @property
    def is_old(self) -> bool:
        """True if it is time to `look` again."""
        return time.monotonic() - self._looked_at >= LOOK_EVERY

    def look(self) -> None:
        """Find out what has been spent since the call began. It uses the cache."""
        self._looked_at = time.monotonic()
        since = self._read_counter() - self._count
        self.credits_used = max(self.credits_used, self._spent + since)

    def _read_counter(self) -> int:
        return whole_number(caching.get(self._counter)) or 0


def require_below(bills: Iterable[Bill]) -> None:
    """Raise SpendingLimitReached if a limit of `bills`, which are ordered outermost first, is
    reached: that of the innermost one."""
    for bill in reversed(tuple(bills)):
        if bill.is_reached:
            raise limit_error(bill)


def limit_error(bill: Bill) -> SpendingLimitReached:
    """Return the error of a bill whose limit is reached."""
    where = {
        "block": ("spending_limit", "Its block", "End the task"),
        "request": ("QUOTA_SPENDING_LIMITS['request']", "This request", "End the task"),
        "user_day": ("QUOTA_SPENDING_LIMITS['user_day']", "The user", "Wait for the next day"),
    }
    name, who, advice = where[bill.kind]
    rest = None
    if isinstance(bill, DayBill):
        # Not the difference of the two times, which is wrong where the clock changes that day.
        rest = max(int(bill.ends_at.timestamp() - _now().timestamp()), 1)
    return SpendingLimitReached(
        f"{name} allows {bill.limit} credits. {who} has spent {bill.credits_used}, so no more is "
        f"sent. {advice}, or set a higher limit.",
        kind=bill.kind,
        limit=bill.limit or 0,
        spent=bill.credits_used,
        retry_after=rest,
    )


def has_project_limits() -> bool:
    """Return True if `bills_of_project` may use the database."""
    limits = get_settings().spending_limits
    return limits is not None and getattr(limits, "user_day", True) is not None


def bills_of_project(user: Any, request: HttpRequest | None, alias: str) -> Iterator[Bill]:
    """Yield the bills that QUOTA_SPENDING_LIMITS sets for a call by `user`, innermost first.

    `alias` is the database of the usage records. The last one makes a query. Raises
    ConfigurationError if the project's function fails.
    """
    limits = _limits_of(user)
    if limits is None:
        return
    if limits.request is not None and request is not None:
        bills = request.__dict__.setdefault("_quota_bills", {})
        # In another database the same primary key is another person's.
        yield bills.setdefault((alias, user.pk), RequestBill(limits.request))
    if limits.user_day is not None:
        yield _bill_of_day(user, alias, limits.user_day)


def function_of_project() -> LimitsOfUser | None:
    """Return the function that QUOTA_SPENDING_LIMITS is or names; None if it is none.

    Raises ConfigurationError if it names no plain function.
    """
    given = get_settings().spending_limits
    if isinstance(given, str):
        return import_function("QUOTA_SPENDING_LIMITS", given, TASK)
    return None if given is None or isinstance(given, SpendingLimits) else given


def _limits_of(user: Any) -> SpendingLimits | None:
    given = get_settings().spending_limits
    if given is None or isinstance(given, SpendingLimits):
        return given
    function = function_of_project()
    assert function is not None
    try:
        found = function(user)
    except (QuotaError, SynchronousOnlyOperation):
        raise
    except Exception as error:
        raise ConfigurationError(
            f"The function in QUOTA_SPENDING_LIMITS raised {type(error).__name__}, so the limits "
            "are unknown and no call is sent. Correct the function."
        ) from error
    return read_limits("The result of the function in QUOTA_SPENDING_LIMITS", found)


def _bill_of_day(user: Any, alias: str, limit: int) -> DayBill:
    """Return the bill of the current day. Calls whose price is unknown count 0."""
    start = _now().replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    spent = _spent_since(start, user, alias)
    day = name_in_database(alias, str(user.pk), int(start.timestamp()))
    return DayBill(limit, spent, f"django_quota.spent.{day}", start + timedelta(days=1))


def _spent_since(start: datetime, user: Any, alias: str) -> int:
    """Add up what the calls of `user` have cost, by a cursor, as `lookup.token_row` does: so no
    result cache of the ORM returns an older sum."""
    rows = UsageRecord.objects.using(alias).filter(user_id=user.pk, created_at__gte=start)
    sums = rows.order_by().values("user_id").annotate(sum=Sum("credits_used")).values("sum")
    sql, values = sums.query.get_compiler(alias).as_sql()
    with connections[alias].cursor() as cursor:
        cursor.execute(sql, values)
        found = cursor.fetchone()
    return int((found and found[0]) or 0)  # a Decimal on most databases


def _now() -> datetime:
    """The time in TIME_ZONE. In the current time zone, which a site may let its users choose, a
    user could begin a new day at any time."""
    zone = timezone.get_default_timezone()
    return timezone.localtime(timezone=zone) if django_settings.USE_TZ else timezone.now()
