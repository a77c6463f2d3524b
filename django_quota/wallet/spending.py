"""What a user has spent, by day and by purpose, from the usage records."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Case, Count, IntegerField, Q, QuerySet, Sum, Value, When
from django.utils import timezone

from django_quota.models import UsageRecord

#: Days that `spending_of` covers; the last one is today.
DAYS = 30
#: Purposes that `spending_of` lists. Those on which less was spent are added up.
MAX_PURPOSES = 10
#: The sums of a day without calls.
_NOTHING = {"spent": 0, "calls": 0}


@dataclass(frozen=True, kw_only=True)
class DaySpending:
    """The calls of one day, in the current time zone, and what they cost in credits."""

    date: date
    credits: int
    calls: int


@dataclass(frozen=True, kw_only=True)
class PurposeSpending:
    """The calls for one purpose and what they cost in credits.

    `purpose` is "" for calls without one, and None for all purposes beyond MAX_PURPOSES.
    """

    purpose: str | None
    credits: int
    calls: int


@dataclass(frozen=True, kw_only=True)
class Spending:
    """The calls of the last DAYS days and what they cost in credits.

    `unpriced` calls are counted in `calls`, but their cost is unknown, so it is in no sum.
    """

    days: list[DaySpending]
    purposes: list[PurposeSpending]
    credits: int
    calls: int
    unpriced: int


def spending_of(user: Any) -> Spending:
    """Return what `user` has spent in the last DAYS days. Makes two queries.

    The days are those of the current time zone.
    """
    midnights = list(_midnights())
    records = UsageRecord.objects.filter(
        user_id=user.pk, created_at__gte=midnights[0], created_at__lt=midnights[-1]
    )
    by_day = {row["day"]: row for row in _sums(records.values(day=_day_number(midnights)))}
    days = [
        DaySpending(
            date=midnight.date(),
            credits=by_day.get(number, _NOTHING)["spent"],
            calls=by_day.get(number, _NOTHING)["calls"],
        )
        for number, midnight in enumerate(midnights[:-1])
    ]
    credits = sum(day.credits for day in days)
    calls = sum(day.calls for day in days)
    return Spending(
        days=days,
        purposes=_purposes(records, credits, calls),
        credits=credits,
        calls=calls,
        unpriced=sum(row["unpriced"] for row in by_day.values()),
    )


def _midnights() -> Iterator[datetime]:
    """The beginnings of the last DAYS days and of tomorrow, as `created_at` stores times."""
    now = timezone.localtime() if settings.USE_TZ else timezone.now()
    for number in range(DAYS + 1):
        day = now.date() + timedelta(days=number - DAYS + 1)
        yield datetime.combine(day, time.min, now.tzinfo)


def _day_number(midnights: list[datetime]) -> Case:
    """The number of a record's day. Not TruncDate: on MariaDB it needs time zone tables, which few
    servers have."""
    whens = [When(created_at__lt=end, then=Value(n)) for n, end in enumerate(midnights[1:])]
    return Case(*whens, output_field=IntegerField())


def _purposes(records: "QuerySet[UsageRecord]", credits: int, calls: int) -> list[PurposeSpending]:
    """The purposes on which most was spent, and what is left of `credits` and `calls`."""
    rows = _sums(records.values("purpose")).order_by("-spent", "-calls", "purpose")[:MAX_PURPOSES]
    purposes = [
        PurposeSpending(purpose=row["purpose"], credits=row["spent"], calls=row["calls"])
        for row in rows
    ]
    more_calls = calls - sum(each.calls for each in purposes)
    more_credits = credits - sum(each.credits for each in purposes)
    if more_calls > 0:
        purposes.append(PurposeSpending(purpose=None, credits=more_credits, calls=more_calls))
    return purposes


def _sums(groups: Any) -> Any:
    return groups.annotate(
        spent=Sum("credits_used", default=0),
        calls=Count("pk"),
        unpriced=Count("pk", filter=Q(credits_used=None)),
    )
