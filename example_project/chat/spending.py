"""The spending of a user by day, for the chart on the usage page."""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from django.db.models import Sum
from django.db.models.functions import TruncDate
from django.utils import timezone

DAYS = 14


@dataclass(frozen=True)
class Day:
    """A bar of the chart. Heights are in units of its SVG."""

    date: date
    credits: int
    height: int  # 190 for the most expensive day

    @property
    def top(self) -> int:
        return 199 - self.height


def spending(user: Any) -> list[Day]:
    """The last two weeks; today is the last day."""
    today = timezone.localdate()
    first = today - timedelta(days=DAYS - 1)
    totals = dict(
        user.quota_usage.filter(created_at__date__gte=first, credits_used__isnull=False)
        .annotate(day=TruncDate("created_at"))
        .values_list("day")
        .annotate(Sum("credits_used"))
    )
    most = max(totals.values(), default=0) or 1
    days = (first + timedelta(days=n) for n in range(DAYS))
    return [Day(day, spent := totals.get(day, 0), max(1, 190 * spent // most)) for day in days]
