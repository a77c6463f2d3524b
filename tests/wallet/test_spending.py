"""django_quota.wallet.spending: what a user has spent, by day and by purpose."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth import get_user_model
from django.utils import timezone

from django_quota.models import UsageRecord
from django_quota.wallet.spending import DAYS, MAX_PURPOSES, Spending, spending_of

pytestmark = pytest.mark.django_db

#: A Sunday on which Berlin puts its clocks back: it has 25 hours.
NOW = datetime(2026, 10, 25, 20, 0, tzinfo=UTC)


@pytest.fixture
def ada() -> Any:
    return get_user_model().objects.create_user("ada")


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timezone, "now", lambda: NOW)


def record(user: Any, credits: int | None = 100, at: datetime = NOW, **fields: Any) -> None:
    number = UsageRecord.objects.count()
    UsageRecord.objects.create(
        user=user, call_id=f"chatcmpl-{number}", credits_used=credits, created_at=at, **fields
    )


def spent_by_date(spending: Spending) -> dict[date, int]:
    return {day.date: day.credits for day in spending.days if day.calls}


def test_user_without_calls_has_days_of_nothing(ada: Any) -> None:
    spending = spending_of(ada)

    assert len(spending.days) == DAYS
    assert [day.date for day in spending.days[-2:]] == [date(2026, 10, 24), date(2026, 10, 25)]
    assert {(day.credits, day.calls) for day in spending.days} == {(0, 0)}
    assert (spending.purposes, spending.credits, spending.calls) == ([], 0, 0)


def test_calls_of_one_day_are_added_up(ada: Any) -> None:
    record(ada, 100)
    record(ada, 250)
    record(ada, 1_000, NOW - timedelta(days=3))

    spending = spending_of(ada)

    assert spent_by_date(spending) == {date(2026, 10, 25): 350, date(2026, 10, 22): 1_000}
    assert (spending.credits, spending.calls) == (1_350, 3)


def test_calls_of_other_users_are_not_counted(ada: Any) -> None:
    record(get_user_model().objects.create_user("bob"), purpose="his")

    assert spending_of(ada).calls == 0
    assert spending_of(ada).purposes == []


def test_calls_before_the_first_day_are_not_counted(ada: Any) -> None:
    first = datetime(2026, 9, 26, tzinfo=UTC)
    record(ada, 1, first)
    record(ada, 2, first - timedelta(microseconds=1))

    with timezone.override(UTC):
        spent = spent_by_date(spending_of(ada))

    assert spent == {date(2026, 9, 26): 1}


def test_calls_after_today_are_not_counted(ada: Any) -> None:
    record(ada, None, NOW + timedelta(days=2))

    spending = spending_of(ada)

    assert (spending.calls, spending.unpriced, spending.purposes) == (0, 0, [])


@pytest.mark.parametrize(
    ("zone", "day"), [("Asia/Tokyo", 26), ("UTC", 25), ("America/Los_Angeles", 25)]
)
def test_days_are_those_of_the_current_time_zone(ada: Any, zone: str, day: int) -> None:
    record(ada)

    with timezone.override(ZoneInfo(zone)):
        spending = spending_of(ada)

    assert list(spent_by_date(spending)) == [date(2026, 10, day)]
    assert spending.days[-1].date == date(2026, 10, day)


def test_day_on_which_the_clocks_go_back_has_25_hours(ada: Any) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    record(ada, 1, datetime(2026, 10, 24, 22, 0, tzinfo=UTC))  # 0:00 in Berlin
    record(ada, 2, datetime(2026, 10, 25, 22, 59, tzinfo=UTC))  # 23:59
    record(ada, 4, datetime(2026, 10, 24, 21, 59, tzinfo=UTC))  # 23:59 of the day before

    with timezone.override(berlin):
        spent = spent_by_date(spending_of(ada))

    assert spent == {date(2026, 10, 24): 4, date(2026, 10, 25): 3}


def test_call_of_unknown_cost_is_counted_but_in_no_sum(ada: Any) -> None:
    record(ada, None, purpose="chat")
    record(ada, 100, purpose="chat")

    spending = spending_of(ada)

    assert (spending.credits, spending.calls, spending.unpriced) == (100, 2, 1)
    assert [(each.credits, each.calls) for each in spending.purposes] == [(100, 2)]


def test_purposes_are_listed_by_cost(ada: Any) -> None:
    record(ada, 5, purpose="title")
    record(ada, 500, purpose="summary")
    record(ada, 70)
    record(ada, None, purpose="unpriced")

    listed = [(each.purpose, each.credits) for each in spending_of(ada).purposes]

    assert listed == [("summary", 500), ("", 70), ("title", 5), ("unpriced", 0)]


def test_purposes_beyond_the_maximum_are_added_up(ada: Any) -> None:
    for number in range(MAX_PURPOSES + 3):
        record(ada, 1_000 - number, purpose=f"purpose {number}")

    purposes = spending_of(ada).purposes

    assert len(purposes) == MAX_PURPOSES + 1
    assert purposes[-1].purpose is None
    assert (purposes[-1].credits, purposes[-1].calls) == (990 + 989 + 988, 3)


def test_sums_take_two_queries(ada: Any, django_assert_num_queries: Any) -> None:
    for number in range(40):
        record(ada, number, NOW - timedelta(days=number), purpose=f"purpose {number}")

    with django_assert_num_queries(2):
        spending_of(ada)


def test_days_without_time_zone_support_are_local(
    ada: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.USE_TZ = False
    naive = datetime(2026, 10, 25, 23, 59)
    monkeypatch.setattr(timezone, "now", lambda: naive)
    record(ada, 100, naive)

    assert spent_by_date(spending_of(ada)) == {date(2026, 10, 25): 100}
