"""A database that is read-only for a while: a standby, a demoted primary, a full disk."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.utils import timezone

from django_quota import connecting
from django_quota.doctor import find_problems
from django_quota.exceptions import ConfigurationError, ProviderUnavailable
from django_quota.models import QuotaToken, UsageRecord
from django_quota.tokens.access import get_access_token
from django_quota.wallet import purchases
from django_quota.wallet.balances import UNAVAILABLE
from django_quota.wallet.usage import record_usage
from tests.helpers.databases import read_only_database

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def read_only(user: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("django_quota.tokens.locking.LOCK_WAIT", 0.1)

    with read_only_database():
        yield


def expires_in(seconds: int) -> None:
    QuotaToken.objects.update(expires_at=timezone.now() + timedelta(seconds=seconds))


@pytest.fixture
def expired(user: Any) -> None:
    expires_in(-60)


@pytest.fixture
def in_the_leeway(user: Any) -> None:
    expires_in(20)


@pytest.mark.usefixtures("in_the_leeway", "read_only")
def test_token_that_is_still_valid_is_used(user: Any) -> None:
    row = QuotaToken.objects.get()
    assert get_access_token(user) == row.access_token.reveal()


@pytest.mark.usefixtures("expired", "read_only")
class TestExpiredToken:
    def test_get_access_token(self, user: Any) -> None:
        with pytest.raises(ProviderUnavailable) as caught:
            get_access_token(user)
        assert caught.value.request_sent is False

    def test_balance_for_page(self, user: Any) -> None:
        assert purchases.balance_for_page(user) == UNAVAILABLE

    def test_quota_refresh_tokens(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("django_quota.tokens.bulk.LONGEST_PAUSE", 0.1)
        with pytest.raises(CommandError, match="Some tokens could not be renewed"):
            call_command("quota_refresh_tokens", verbosity=0)


@pytest.mark.slow
@pytest.mark.usefixtures("read_only")
def test_disconnect(user: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProviderUnavailable, match="try again soon"):
        connecting.disconnect(user)


@pytest.mark.usefixtures("read_only")
def test_record_usage_keeps_the_answer(user: Any, caplog: pytest.LogCaptureFixture) -> None:
    block = {"quota": {"credits_used": 5, "balance_after": 95}}
    reply = SimpleNamespace(id="chatcmpl-1", model="m", usage=None, model_extra=block)
    with caplog.at_level(logging.WARNING, "django_quota"):
        usage = record_usage(user, reply)
    assert usage is not None and usage.credits_used == 5
    assert "usage not recorded yet" in caplog.text
    assert not UsageRecord.objects.exists()


#: What PgBouncer answers to BEGIN where its pool_mode is statement.
NO_TRANSACTIONS = "transaction blocks not allowed in statement pooling mode"


@pytest.fixture
def statement_pooling(user: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OperationalError(NO_TRANSACTIONS)

    monkeypatch.setattr("django.db.transaction.Atomic.__enter__", refuse)


@pytest.mark.usefixtures("expired", "statement_pooling")
class TestStatementPooling:
    def test_quota_refresh_tokens_ends_at_the_first_token(self) -> None:
        with pytest.raises(CommandError, match="ended early: PgBouncer's pool_mode is statement"):
            call_command("quota_refresh_tokens", verbosity=0)

    def test_get_access_token(self, user: Any) -> None:
        with pytest.raises(ConfigurationError, match="set it to transaction or session"):
            get_access_token(user)

    def test_quota_check(self) -> None:
        findings = {finding.what: finding for finding in find_problems()}
        assert not findings["transactions"].ok
        assert "pool_mode" in findings["transactions"].detail
