"""What a call cost: read from the reply, recorded once, told to whoever listens."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import QuerySet
from django.test.utils import CaptureQueriesContext

from django_quota import signals
from django_quota.exceptions import ConfigurationError
from django_quota.models import UsageRecord
from django_quota.tokens import durable
from django_quota.tokens.wallet_name import wallet_of
from django_quota.wallet import purchases
from django_quota.wallet.balances import kept_balance
from django_quota.wallet.calls import Caller
from django_quota.wallet.pending_record import PendingRecord
from django_quota.wallet.replies import Usage, read_reply
from django_quota.wallet.usage import arecord_usage, record_call, record_usage
from tests.helpers.balances import cache_balance
from tests.helpers.concurrency import run_async, wait_until
from tests.helpers.databases import needs_second_connection
from tests.helpers.replies import record_now, reply
from tests.sandbox_client import Sandbox
from tests.shown import listening

pytestmark = pytest.mark.django_db(transaction=True)

BALANCE = ["GET /v1/balance"]


@pytest.fixture
def anybody() -> Any:
    return get_user_model().objects.create(username="anybody")


class TestRecordCall:
    def test_makes_the_balance_right_without_a_request(self, user: Any, sandbox: Sandbox) -> None:
        purchases.get_balance(user)
        record_now(user, reply(credits_used=1_200, balance_after=998_800))

        assert purchases.get_balance(user).credits == 998_800
        assert sandbox.requests() == BALANCE

    def test_without_a_balance_it_is_asked_for_again(self, user: Any, sandbox: Sandbox) -> None:
        purchases.get_balance(user)
        record_now(user, reply(credits_used=1_200))
        purchases.get_balance(user)
        assert sandbox.requests() == BALANCE * 2

    def test_call_without_a_price_is_recorded_and_the_balance_asked_for_again(
        self, user: Any, sandbox: Sandbox
    ) -> None:
        purchases.get_balance(user)
        with listening(signals.usage_recorded) as heard:
            record_now(user, reply(), complete=False)
        row = UsageRecord.objects.get()
        assert (row.credits_used, row.complete) == (None, False)
        assert [h["complete"] for h in heard] == [False]
        assert (heard[0]["usage"].cost, heard[0]["usage"].balance) == ("", "")
        purchases.get_balance(user)
        assert sandbox.requests() == BALANCE * 2

    def test_reply_that_is_recorded_late_does_not_replace_a_newer_balance(
        self, anybody: Any
    ) -> None:
        call, arrived_at = Caller().call(anybody), time.time()
        cache_balance(anybody, 50)
        record_call(call, read_reply(reply(credits_used=1, balance_after=99)), arrived_at)
        assert kept_balance(anybody) is None  # Quota is asked

    def test_two_calls_at_once_leave_no_balance(self, anybody: Any) -> None:
        """Either may be the newer one."""
        record_now(anybody, reply(credits_used=1, balance_after=99))
        record_now(anybody, reply("chatcmpl-2", credits_used=1, balance_after=98))
        assert kept_balance(anybody) is None

    def test_error_of_any_kind_does_not_reach_the_caller(
        self, anybody: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken(record: PendingRecord) -> bool:
            raise LookupError

        monkeypatch.setattr(PendingRecord, "_insert", broken)
        record_now(anybody, reply(credits_used=5, balance_after=95))
        assert "the usage of a call was not recorded: LookupError" in caplog.text


class TestRecordUsage:
    def test_returns_the_cost_and_the_balance(self, anybody: Any) -> None:
        usage = record_usage(anybody, reply(credits_used=1_200, balance_after=998_800))
        assert usage == Usage(credits_used=1_200, balance_after=998_800)
        assert usage is not None
        assert (usage.cost, usage.balance) == ("$0.0012", "$0.9988")

    def test_balance_is_asked_for_again(self, user: Any, sandbox: Sandbox) -> None:
        """The reply may be an old one."""
        purchases.get_balance(user)
        record_usage(user, reply(credits_used=1_200, balance_after=998_800))
        purchases.get_balance(user)
        assert sandbox.requests() == BALANCE * 2

    def test_reply_that_has_lost_its_price_has_that_of_its_record(self, anybody: Any) -> None:
        """As what `stream.get_final_completion()` of the SDK returns."""
        record_usage(anybody, reply(credits_used=5, balance_after=95))
        assert record_usage(anybody, reply()) == Usage(credits_used=5, balance_after=95)

    def test_reply_without_an_id_is_recorded_once(self, anybody: Any) -> None:
        """As embeddings are; the balance distinguishes two of them."""
        for after in (95, 95, 90):
            record_usage(anybody, reply(None, credits_used=5, balance_after=after))
        assert UsageRecord.objects.count() == 2

    def test_keeps_a_record(self, anybody: Any) -> None:
        record_usage(anybody, reply(credits_used=1_200, balance_after=998_800))
        row = anybody.quota_usage.get()
        assert (row.call_id, row.model, row.complete) == ("chatcmpl-1", "gpt-4o-mini", True)
        assert (row.prompt_tokens, row.completion_tokens) == (12, 34)
        assert (row.credits_used, row.balance_after) == (1_200, 998_800)

    def test_of_one_completion_once(self, anybody: Any) -> None:
        with listening(signals.usage_recorded) as heard:
            record_usage(anybody, reply(credits_used=1, balance_after=99))
            record_usage(anybody, reply("chatcmpl-2", credits_used=1, balance_after=98))
            again = record_usage(anybody, reply(credits_used=1, balance_after=99))
        assert again == Usage(credits_used=1, balance_after=99)
        assert UsageRecord.objects.count() == len(heard) == 2

    def test_of_one_completion_again_leaves_the_balance(self, anybody: Any) -> None:
        record_usage(anybody, reply(credits_used=1, balance_after=99))
        cache_balance(anybody, 50)
        record_usage(anybody, reply(credits_used=1, balance_after=99))
        assert kept_balance(anybody) == purchases.Balance(credits=50)

    def test_the_same_id_of_another_user_is_another_call(self, anybody: Any) -> None:
        record_usage(anybody, reply(credits_used=1))
        record_usage(get_user_model().objects.create(username="x"), reply(credits_used=1))
        assert UsageRecord.objects.count() == 2

    def test_tells_whoever_listens(self, anybody: Any) -> None:
        with listening(signals.usage_recorded) as heard:
            usage = record_usage(anybody, reply(credits_used=1, balance_after=2))
        assert [(h["user"], h["usage"], h["complete"]) for h in heard] == [(anybody, usage, True)]

    def test_async_twin(self, anybody: Any) -> None:
        async def main() -> Any:
            usage = await arecord_usage(anybody, reply(credits_used=1, balance_after=2))
            return usage

        assert run_async(main()) == Usage(credits_used=1, balance_after=2)
        assert UsageRecord.objects.count() == 1

    def test_on_an_event_loop_it_names_its_twin(self, anybody: Any) -> None:
        async def main() -> None:
            record_usage(anybody, reply(credits_used=1, balance_after=2))

        with pytest.raises(ConfigurationError, match="await arecord_usage"):
            run_async(main())

    @pytest.mark.parametrize(
        "odd",
        [
            SimpleNamespace(model_extra=None),
            SimpleNamespace(model_extra={}),
            SimpleNamespace(model_extra={"quota": None}),
            SimpleNamespace(model_extra={"quota": []}),
            reply(),
            reply(credits_used="12"),
            reply(credits_used=True),
            reply(credits_used=1.5),
            reply(credits_used=1 << 63),
            object(),
            None,
        ],
    )
    def test_a_chunk_without_the_block_is_passed_over(self, anybody: Any, odd: Any) -> None:
        assert record_usage(anybody, odd) is None
        assert not UsageRecord.objects.exists()

    @pytest.mark.parametrize(
        "changes",
        [
            {"id": None},
            {"id": "x" * 300},
            {"id": "a\x00b"},
            {"id": "\ud800"},
            {"model": 7},
            {"model": "m" * 300},
            {"usage": None},
            {"usage": SimpleNamespace(prompt_tokens=-1, completion_tokens="many")},
            {"usage": SimpleNamespace(prompt_tokens=1 << 80, completion_tokens=None)},
        ],
    )
    def test_an_odd_reply_is_recorded_as_far_as_it_goes(self, anybody: Any, changes: Any) -> None:
        odd = reply(credits_used=5, balance_after=1 << 90)
        vars(odd).update(changes)
        assert record_usage(anybody, odd) == Usage(credits_used=5, balance_after=None)
        assert UsageRecord.objects.get().credits_used == 5


class TestLowBalance:
    @pytest.mark.parametrize(
        ("used", "after", "times"),
        [(1, 100_000, 0), (1, 99_999, 1), (50_000, 50_000, 1), (1, 99_998, 0), (1, -5, 0)],
    )
    def test_is_told_once_a_fall(self, anybody: Any, used: int, after: int, times: int) -> None:
        with listening(signals.balance_low) as heard:
            record_usage(anybody, reply(credits_used=used, balance_after=after))
        assert len(heard) == times

    def test_names_user_balance_and_threshold(self, anybody: Any, settings: Any) -> None:
        settings.QUOTA_LOW_BALANCE = 500
        with listening(signals.balance_low) as heard:
            record_usage(anybody, reply(credits_used=20, balance_after=490))
        (low,) = heard
        assert (low["user"], low["balance"].credits, low["threshold"]) == (anybody, 490, 500)


class TestWhereTheDatabaseCannot:
    """What was paid for is not taken away by what is noted of it."""

    def test_write_now_it_is_written_after_the_transaction(
        self, anybody: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As on SQLite, where this transaction has read and another has written since."""
        real = QuerySet.get_or_create
        locked = [OperationalError("database is locked")]

        def get_or_create(rows: Any, **what: Any) -> Any:
            if locked:
                raise locked.pop()
            return real(rows, **what)

        monkeypatch.setattr(QuerySet, "get_or_create", get_or_create)
        with transaction.atomic():
            usage = record_usage(anybody, reply(credits_used=1_200, balance_after=998_800))
            assert usage is not None and usage.balance == "$0.9988"
            assert not anybody.quota_usage.exists()
        wait_until(anybody.quota_usage.exists)
        assert anybody.quota_usage.get().credits_used == 1_200

    def test_write_at_all_it_is_in_the_log(
        self, anybody: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken(rows: Any, **what: Any) -> Any:
            raise OperationalError("no space left")

        monkeypatch.setattr(QuerySet, "get_or_create", broken)
        assert record_usage(anybody, reply(credits_used=1_200, balance_after=998_800))
        assert "usage not recorded yet: OperationalError" in caplog.text
        assert "no space left" in caplog.text

    def test_write_for_a_while_it_is_written_when_it_can_and_told_once(
        self, anybody: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(durable, "PAUSE", (0.01, 0.01))
        real = PendingRecord._insert
        away = [OperationalError("the database is starting up")] * 3

        def insert(record: PendingRecord) -> bool:
            if away:
                raise away.pop()
            return real(record)

        monkeypatch.setattr(PendingRecord, "_insert", insert)
        with listening(signals.usage_recorded) as heard:
            usage = record_usage(anybody, reply(credits_used=1_200, balance_after=998_800))
            assert usage is not None and usage.balance == "$0.9988"
            wait_until(lambda: len(heard) == 1)
        assert anybody.quota_usage.get().credits_used == 1_200
        wait_until(lambda: not durable.outbox.is_waiting())

    @needs_second_connection
    def test_even_be_reached_it_is_written_later(
        self, anybody: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def away(wrapper: Any) -> None:
            raise OperationalError("connection refused")

        monkeypatch.setattr(durable, "PAUSE", (0.01, 0.1))
        connection.close()
        with monkeypatch.context() as patch:
            patch.setattr(BaseDatabaseWrapper, "connect", away)
            assert record_usage(anybody, reply(credits_used=5, balance_after=95))
        wait_until(anybody.quota_usage.exists)


@needs_second_connection
class TestInATransaction:
    """ATOMIC_REQUESTS: what was paid for is recorded, whatever becomes of the rest."""

    def test_a_rollback_does_not_take_the_record_with_it(self, anybody: Any) -> None:
        with pytest.raises(ValueError, match="view"), transaction.atomic():
            record_usage(anybody, reply(credits_used=5, balance_after=95))
            raise ValueError("the view fails")
        assert anybody.quota_usage.get().credits_used == 5

    def test_it_costs_one_statement_on_the_connection_of_the_caller(self, anybody: Any) -> None:
        """Which schema it is in; all else is on the other one."""
        wallet_of(anybody)
        with transaction.atomic(), CaptureQueriesContext(connection) as mine:
            record_now(anybody, reply(credits_used=5, balance_after=95))
        assert len(mine) == 1
        assert UsageRecord.objects.count() == 1

    def test_a_lost_connection_is_raised_and_the_record_is_there(self, anybody: Any) -> None:
        """Else the answer would say that all went well, and what the view wrote would be gone."""
        with pytest.raises((OperationalError, InterfaceError)), transaction.atomic():
            get_user_model().objects.create(username="of the view")
            connection.connection.close()
            record_usage(anybody, reply(credits_used=5, balance_after=95))
        connection.close()
        assert anybody.quota_usage.get().credits_used == 5
        assert not get_user_model().objects.filter(username="of the view").exists()

    def test_a_user_who_was_made_in_it_is_recorded_in_it(self) -> None:
        with transaction.atomic():
            new = get_user_model().objects.create(username="new")
            record_usage(new, reply(credits_used=5, balance_after=95))
        wait_until(new.quota_usage.exists)

    def test_a_user_whom_it_has_locked_is_recorded_after_it(
        self, anybody: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(durable, "PAUSE", (0.01, 0.1))
        with pytest.raises(ValueError, match="view"), transaction.atomic():
            get_user_model().objects.select_for_update().get(pk=anybody.pk)
            record_usage(anybody, reply(credits_used=5, balance_after=95))
            raise ValueError("the view fails")
        wait_until(anybody.quota_usage.exists)

    def test_a_statement_that_fails_leaves_the_transaction_whole(
        self, anybody: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(record: PendingRecord) -> bool:
            raise OperationalError("no space left")

        monkeypatch.setattr(PendingRecord, "_insert", broken)
        with transaction.atomic():
            get_user_model().objects.create(username="of the view")
            assert record_usage(anybody, reply(credits_used=5, balance_after=95))
        assert get_user_model().objects.filter(username="of the view").exists()


@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="others write on their own connection")
def test_on_sqlite_a_transaction_that_is_lost_is_raised(
    anybody: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(record: PendingRecord) -> bool:
        connection.needs_rollback = True  # as Django sets it where a savepoint cannot be undone
        raise OperationalError("disk I/O error")

    monkeypatch.setattr(PendingRecord, "_insert", lost)
    with pytest.raises(OperationalError), transaction.atomic():
        record_usage(anybody, reply(credits_used=5, balance_after=95))
