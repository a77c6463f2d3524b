"""The settings of spending limits, what a user has spent today, and what the error says."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.http import HttpRequest
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_quota.checks import check_spending_limits
from django_quota.conf import get_settings, problems
from django_quota.exceptions import ConfigurationError, NotConnected, SpendingLimitReached
from django_quota.models import UsageRecord
from django_quota.tokens.payer import during
from django_quota.wallet import billed_for, limits, spending_limit
from django_quota.wallet.attribution import Bill
from django_quota.wallet.calls import Call, Caller
from django_quota.wallet.replies import Reply, Usage
from django_quota.wallet.usage import record_call

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def anybody() -> Any:
    return get_user_model().objects.create(username="anybody")


def spend(call: Call, credits: int | None, call_id: str = "chatcmpl-1") -> None:
    """Record that `call` has cost so much."""
    usage = Usage(credits_used=credits, balance_after=1)
    record_call(call, Reply(id=call_id, usage=usage if credits is not None else None), 0)


def write(user: Any, credits: int | None, **values: Any) -> None:
    call_id = f"chatcmpl-{UsageRecord.objects.count()}"
    UsageRecord.objects.create(user=user, call_id=call_id, credits_used=credits, **values)


def stopped(user: Any) -> SpendingLimitReached | None:
    """Return the error that stops the next call of `user`."""
    try:
        Caller().begin(user)
    except SpendingLimitReached as error:
        return error
    return None


class TestSpendingLimit:
    @pytest.mark.parametrize("credits", [True, 1.5, "5", None, [5]])
    def test_no_whole_number_is_refused(self, credits: Any) -> None:
        with pytest.raises(TypeError, match="takes an int"), spending_limit(credits=credits):
            pass

    @pytest.mark.parametrize("credits", [0, -1, 1 << 62])
    def test_number_out_of_range_is_refused(self, credits: int) -> None:
        with pytest.raises(ValueError, match="above 0"), spending_limit(credits=credits):
            pass

    def test_call_below_the_limit_is_sent_and_one_at_the_limit_is_not(self, anybody: Any) -> None:
        with spending_limit(credits=50) as bill:
            spend(Caller().begin(anybody), 49, "a")
            spend(Caller().begin(anybody), 1, "b")
            error = stopped(anybody)
        assert (bill.limit, bill.credits_used, bill.calls) == (50, 50, 2)
        assert error is not None
        assert (error.kind, error.limit, error.spent) == ("block", 50, 50)
        assert error.retry_after is None
        assert stopped(anybody) is None

    def test_call_without_a_price_counts_nothing(self, anybody: Any) -> None:
        with spending_limit(credits=1):
            spend(Caller().begin(anybody), None)
            assert stopped(anybody) is None

    def test_innermost_limit_that_is_reached_is_named(self, anybody: Any) -> None:
        with spending_limit(credits=30), spending_limit(credits=20), spending_limit(credits=90):
            spend(Caller().begin(anybody), 40)
            error = stopped(anybody)
        assert error is not None and error.limit == 20

    def test_outer_limit_counts_inner_blocks(self, anybody: Any) -> None:
        with spending_limit(credits=30):
            with spending_limit(credits=90), billed_for(purpose="step"):
                spend(Caller().begin(anybody), 40)
            error = stopped(anybody)
        assert error is not None and error.limit == 30

    def test_limit_inside_billed_for_keeps_the_purpose(self, anybody: Any) -> None:
        with billed_for(purpose="summary") as outer, spending_limit(credits=5) as inner:
            spend(Caller().begin(anybody), 7)
        assert anybody.quota_usage.get().purpose == "summary"
        assert (outer.credits_used, inner.credits_used, outer.limit) == (7, 7, None)

    def test_free_request_is_sent_all_the_same(self, anybody: Any) -> None:
        with spending_limit(credits=1):
            spend(Caller().begin(anybody), 1)
            assert Caller().begin(anybody, "GET")

    def test_counts_where_usage_is_not_recorded(self, anybody: Any, settings: Any) -> None:
        settings.QUOTA_RECORD_USAGE = False
        with spending_limit(credits=1):
            call = Caller().begin(anybody)
            spend(call, 1)
            assert stopped(anybody)
        assert not UsageRecord.objects.exists()


class TestSetting:
    @pytest.mark.parametrize("credits", [0, -1, True, 1.5, "5", None, 1 << 62])
    @pytest.mark.parametrize("key", ["request", "user_day"])
    def test_bad_number_is_a_problem_that_names_it(
        self, settings: Any, key: str, credits: Any
    ) -> None:
        settings.QUOTA_SPENDING_LIMITS = {key: credits}
        message = str(problems()["QUOTA_SPENDING_LIMITS"])
        assert f"QUOTA_SPENDING_LIMITS['{key}'] must be a whole number" in message

    @pytest.mark.parametrize(
        ("value", "words"),
        [
            ({"day": 5}, "unknown key 'day'"),
            ({7: 5}, "unknown key 7"),
            ({"call": 5}, "max_tokens"),
            ([], "must be a dict"),
            (5, "must be a dict"),
            ("limits", "dotted path"),
            ("", "non-empty"),
        ],
    )
    def test_other_value_is_a_problem(self, settings: Any, value: Any, words: str) -> None:
        settings.QUOTA_SPENDING_LIMITS = value
        assert words in str(problems()["QUOTA_SPENDING_LIMITS"])

    def test_coroutine_function_is_a_problem(self, settings: Any) -> None:
        settings.QUOTA_SPENDING_LIMITS = _alimits
        assert "not async def" in str(problems()["QUOTA_SPENDING_LIMITS"])

    @pytest.mark.parametrize("value", [None, {}, {"request": 1}, {"request": 1, "user_day": 2}])
    def test_any_subset_is_accepted(self, settings: Any, value: Any) -> None:
        settings.QUOTA_SPENDING_LIMITS = value
        assert problems() == {}

    @pytest.mark.parametrize(
        "path", ["no_such.module", f"{__name__}.nothing", f"{__name__}._alimits"]
    )
    def test_path_of_no_function_is_said_by_the_check_and_stops_calls(
        self, settings: Any, anybody: Any, path: str
    ) -> None:
        settings.QUOTA_SPENDING_LIMITS = path
        (message,) = check_spending_limits()
        assert (message.id, path in message.msg) == ("django_quota.E008", True)
        with pytest.raises(ConfigurationError, match="QUOTA_SPENDING_LIMITS"):
            Caller().begin(anybody)

    def test_limit_of_a_day_without_records_is_said_by_the_check(self, settings: Any) -> None:
        settings.QUOTA_RECORD_USAGE = False
        settings.QUOTA_SPENDING_LIMITS = {"request": 1}
        assert check_spending_limits() == []
        settings.QUOTA_SPENDING_LIMITS = {"user_day": 1}
        assert [message.id for message in check_spending_limits()] == ["django_quota.W016"]

    def test_bill_of_a_request_is_of_one_database(self, anybody: Any, settings: Any) -> None:
        settings.QUOTA_SPENDING_LIMITS = {"request": 1}
        request = HttpRequest()
        (first,) = limits.bills_of_project(anybody, request, "default")
        (same,) = limits.bills_of_project(anybody, request, "default")
        (other,) = limits.bills_of_project(anybody, request, "other")
        assert same is first and other is not first

    def test_check_is_content(self, settings: Any) -> None:
        accepted: list[Any] = [None, {}, _limits, f"{__name__}._limits"]
        for value in accepted:
            settings.QUOTA_SPENDING_LIMITS = value
            assert check_spending_limits() == []
        settings.QUOTA_SPENDING_LIMITS = 7
        assert check_spending_limits() == [], "check_settings says so"


def _limits(user: Any) -> Any:
    return None if user.is_staff else {"user_day": 5}


async def _alimits(user: Any) -> Any:
    return None


class TestFunction:
    @pytest.mark.parametrize("given", [_limits, f"{__name__}._limits"])
    def test_decides_for_each_user(self, anybody: Any, settings: Any, given: Any) -> None:
        settings.QUOTA_SPENDING_LIMITS = given
        write(anybody, 5)
        assert stopped(anybody)
        anybody.is_staff = True
        assert stopped(anybody) is None

    def test_that_raises_stops_the_call(self, anybody: Any, settings: Any) -> None:
        def broken(user: Any) -> Any:
            raise LookupError("of the project")

        settings.QUOTA_SPENDING_LIMITS = broken
        with pytest.raises(ConfigurationError, match="raised LookupError") as caught:
            Caller().begin(anybody)
        assert isinstance(caught.value.__cause__, LookupError)

    def test_that_raises_an_error_of_the_package_keeps_it(
        self, anybody: Any, settings: Any
    ) -> None:
        def refuses(user: Any) -> Any:
            raise NotConnected("no")

        settings.QUOTA_SPENDING_LIMITS = refuses
        with pytest.raises(NotConnected):
            Caller().begin(anybody)

    @pytest.mark.parametrize("result", [{"user_day": 0}, {"call": 1}, 7, "user_day"])
    def test_bad_result_stops_the_call(self, anybody: Any, settings: Any, result: Any) -> None:
        settings.QUOTA_SPENDING_LIMITS = lambda user: result
        with pytest.raises(ConfigurationError, match="The result of the function"):
            Caller().begin(anybody)


class TestRequest:
    def test_counts_the_calls_of_one_request(self, anybody: Any, settings: Any) -> None:
        settings.QUOTA_SPENDING_LIMITS = {"request": 5}
        with during(HttpRequest()):
            spend(Caller().begin(anybody), 5)
            error = stopped(anybody)
        assert error is not None and (error.kind, error.limit) == ("request", 5)
        with during(HttpRequest()):
            assert stopped(anybody) is None

    def test_counts_each_wallet_by_itself(self, anybody: Any, settings: Any) -> None:
        settings.QUOTA_SPENDING_LIMITS = {"request": 5}
        other = get_user_model().objects.create(username="other")
        with during(HttpRequest()):
            spend(Caller().begin(anybody), 5)
            assert stopped(other) is None

    def test_makes_no_query(self, anybody: Any, settings: Any) -> None:
        settings.QUOTA_SPENDING_LIMITS = {"request": 5}
        with during(HttpRequest()), CaptureQueriesContext(connection) as queries:
            Caller().begin(anybody)
        assert len(queries) == 0

    def test_does_not_apply_outside_of_a_request(self, anybody: Any, settings: Any) -> None:
        settings.QUOTA_SPENDING_LIMITS = {"request": 5}
        spend(Caller().begin(anybody), 5)
        assert stopped(anybody) is None


class TestDay:
    @pytest.fixture(autouse=True)
    def limit(self, settings: Any) -> None:
        settings.QUOTA_SPENDING_LIMITS = {"user_day": 50}

    def test_adds_up_the_records_of_today_by_one_query(self, anybody: Any) -> None:
        write(anybody, 30)
        write(anybody, None)
        write(anybody, 90, created_at=timezone.now() - timedelta(days=1))
        assert stopped(anybody) is None
        write(anybody, 20)
        with CaptureQueriesContext(connection) as queries:
            error = stopped(anybody)
        assert len(queries) == 1
        assert error is not None and error.retry_after is not None
        assert (error.kind, error.limit, error.spent) == ("user_day", 50, 50)
        assert 0 < error.retry_after <= 86400
        assert type(error.spent) is int

    def test_is_of_one_user(self, anybody: Any) -> None:
        write(anybody, 90)
        assert stopped(get_user_model().objects.create(username="other")) is None

    def test_is_not_asked_for_if_a_block_stops_the_call(self, anybody: Any) -> None:
        with spending_limit(credits=1):
            spend(Caller().begin(anybody), 1)
            with CaptureQueriesContext(connection) as queries:
                error = stopped(anybody)
        assert error is not None and error.kind == "block"
        assert len(queries) == 0

    @pytest.mark.parametrize(
        ("zone", "is_today"), [("Pacific/Auckland", False), ("America/Los_Angeles", True)]
    )
    def test_begins_at_midnight_in_the_time_zone_of_the_site(
        self,
        anybody: Any,
        settings: Any,
        monkeypatch: pytest.MonkeyPatch,
        zone: str,
        is_today: bool,
    ) -> None:
        """At 14:00 UTC, it is 02:00 of the next day in Auckland."""
        settings.TIME_ZONE = zone
        now = datetime(2026, 7, 1, 14, tzinfo=UTC)
        monkeypatch.setattr(timezone, "now", lambda: now)
        write(anybody, 50, created_at=now - timedelta(hours=3))
        # That of a user, who may choose it, does not count.
        with timezone.override(UTC):
            assert (stopped(anybody) is not None) is is_today

    @pytest.mark.parametrize(("month", "day", "hours"), [(3, 29, 23), (10, 25, 25), (7, 1, 24)])
    def test_is_as_long_as_the_clock_says(
        self,
        anybody: Any,
        settings: Any,
        monkeypatch: pytest.MonkeyPatch,
        month: int,
        day: int,
        hours: int,
    ) -> None:
        settings.TIME_ZONE = "Europe/Berlin"
        zone = ZoneInfo("Europe/Berlin")
        now = datetime(2026, month, day, tzinfo=zone)
        monkeypatch.setattr(timezone, "now", lambda: now)
        write(anybody, 50)
        error = stopped(anybody)
        assert error is not None and error.retry_after == hours * 3600

    def test_works_without_time_zones(self, anybody: Any, settings: Any) -> None:
        settings.USE_TZ = False
        write(anybody, 50)
        error = stopped(anybody)
        assert error is not None and error.spent == 50


class TestCounterOfTheDay:
    """What a running call learns of others, without a query."""

    @pytest.fixture(autouse=True)
    def limit(self, settings: Any) -> None:
        settings.QUOTA_SPENDING_LIMITS = {"user_day": 50}

    def day_of(self, call: Call) -> limits.DayBill:
        (bill,) = call.bills
        assert isinstance(bill, limits.DayBill)
        return bill

    def test_adds_up_the_calls_that_were_recorded_since(self, anybody: Any) -> None:
        write(anybody, 10)
        spend(Caller().begin(anybody), 5, "before")
        running, others = Caller().begin(anybody), [Caller().begin(anybody) for _ in range(2)]
        for number, other in enumerate(others):
            spend(other, 20, f"other-{number}")
        bill = self.day_of(running)
        with CaptureQueriesContext(connection) as queries:
            bill.look()
        assert len(queries) == 0
        assert (bill.credits_used, bill.is_reached) == (55, True)

    def test_counts_no_call_twice(self, anybody: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """One that is counted, and whose record is not written yet when a call begins."""
        recording = Caller().begin(anybody)
        begun: list[Call] = []
        real = limits.caching.increase

        def increase(*args: Any) -> None:
            real(*args)
            begun.append(Caller().begin(anybody))

        monkeypatch.setattr(limits.caching, "increase", increase)
        spend(recording, 30)
        (bill,) = map(self.day_of, begun)
        bill.look()
        assert bill.credits_used == 0
        assert self.day_of(Caller().begin(anybody)).credits_used == 30

    def test_is_of_one_user(self, anybody: Any) -> None:
        running = self.day_of(Caller().begin(anybody))
        spend(Caller().begin(get_user_model().objects.create(username="other")), 90)
        running.look()
        assert running.credits_used == 0

    @pytest.mark.parametrize(
        "cache",
        ["django.core.cache.backends.dummy.DummyCache", "tests.caches.Down", "tests.caches.Hidden"],
    )
    def test_cache_that_does_not_work_hides_no_limit(
        self, anybody: Any, settings: Any, cache: str
    ) -> None:
        settings.CACHES = {"default": {"BACKEND": cache}}
        running = self.day_of(Caller().begin(anybody))
        spend(Caller().begin(anybody), 60)
        running.look()
        assert running.credits_used == 0
        assert stopped(anybody)

    def test_cache_that_has_lost_the_counter_lowers_nothing(self, anybody: Any) -> None:
        write(anybody, 10)
        spend(Caller().begin(anybody), 5)
        running = self.day_of(Caller().begin(anybody))
        limits.caching.forget(running._counter)
        running.look()
        assert running.credits_used == 15


@pytest.mark.parametrize("copied", [copy.copy, lambda e: pickle.loads(pickle.dumps(e))])
def test_error_that_is_copied_keeps_what_it_says(
    copied: Callable[[SpendingLimitReached], SpendingLimitReached],
) -> None:
    """As on its way from a worker process."""
    bill = Bill(5)
    bill.add(7)
    error = copied(limits.limit_error(bill))
    assert (error.kind, error.limit, error.spent, str(error)) == (
        "block",
        5,
        7,
        "spending_limit allows 5 credits. Its block has spent 7, so no more is sent. End the task, "
        "or set a higher limit.",
    )


def test_call_without_any_limit_makes_no_query(anybody: Any) -> None:
    assert get_settings().spending_limits is None
    with CaptureQueriesContext(connection) as queries:
        call = Caller().begin(anybody)
    assert (len(queries), call.bills) == (0, ())
