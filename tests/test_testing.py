"""django_quota.testing: what a project's own TestCase needs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import get_user_model
from django.db import transaction
from django.test import TestCase
from django.utils import timezone

from django_quota.exceptions import RefreshImpossibleHere
from django_quota.models import ProviderAccount, QuotaToken
from django_quota.testing import renewals_in_this_transaction
from django_quota.tokens import access
from django_quota.wallet import purchases
from tests.sandbox_client import Sandbox


@pytest.fixture
def renewals_here() -> Any:
    with renewals_in_this_transaction():
        yield


@pytest.fixture
def expired(db: None, sandbox: Sandbox) -> Any:
    """Ada's user, signed in and with an expired token, in a transaction that nobody will commit."""
    sandbox.person().sign_in()
    QuotaToken.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    sandbox.forget_requests()
    return ProviderAccount.objects.get().user


def in_a_view_with_atomic_requests(user: Any) -> str:
    with transaction.atomic():
        return access.get_access_token(user)


class TestWithoutIt:
    def test_a_renewal_says_what_is_missing_and_asks_nobody(
        self, expired: Any, sandbox: Sandbox
    ) -> None:
        with pytest.raises(RefreshImpossibleHere):
            access.get_access_token(expired)
        assert sandbox.requests() == []


@pytest.mark.usefixtures("renewals_here")
class TestWithIt:
    def test_a_token_is_renewed(self, expired: Any, sandbox: Sandbox) -> None:
        before = QuotaToken.objects.get().access_token.reveal()
        assert access.get_access_token(expired) not in ("", before)
        assert sandbox.requests() == ["POST /oauth/token"]

    def test_in_a_transaction_too(self, expired: Any, sandbox: Sandbox) -> None:
        token = in_a_view_with_atomic_requests(expired)
        assert QuotaToken.objects.get().access_token.reveal() == token

    def test_in_async_code_too(self, expired: Any, sandbox: Sandbox) -> None:
        token = async_to_sync(access.aget_access_token)(expired)
        assert QuotaToken.objects.get().access_token.reveal() == token
        assert sandbox.requests() == ["POST /oauth/token"]

    def test_behind_a_page_too(self, expired: Any, sandbox: Sandbox) -> None:
        shown = purchases.balance_for_page(expired)
        assert shown.state == "available" and shown.balance is not None
        assert sandbox.requests() == ["POST /oauth/token", "GET /v1/balance"]


def test_it_ends() -> None:
    from django_quota.tokens.single_flight import renewals

    with renewals_in_this_transaction(), renewals_in_this_transaction():
        assert renewals.inline
    assert not renewals.inline


class InADjangoTestCase(TestCase):
    """As the docstring has it; without HTTP, which a fresh token does not need."""

    def setUp(self) -> None:
        self.enterContext(renewals_in_this_transaction())

    def test_a_fresh_token_is_there(self) -> None:
        user = get_user_model().objects.create(username="ada")
        account = ProviderAccount.objects.create(user=user, external_id="sub")
        soon = timezone.now() + timedelta(hours=1)
        QuotaToken.objects.create(account=account, access_token="quota_token_1", expires_at=soon)
        self.assertEqual(access.get_access_token(user), "quota_token_1")
