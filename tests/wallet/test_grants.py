"""Credits that the developer gives: once for each key, whatever fails on the way."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from enum import IntEnum
from functools import partial
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.db import OperationalError, connection, transaction
from django.utils import timezone

from django_quota import signals
from django_quota.ai import factory
from django_quota.exceptions import (
    ConfigurationError,
    GrantUnconfirmed,
    IdempotencyKeyRefused,
    NotConnected,
    ProviderUnavailable,
    RateLimited,
    RefreshImpossibleHere,
    RequestRefused,
)
from django_quota.models import CreditGrant, ProviderAccount, QuotaToken
from django_quota.oidc import wallet_api
from django_quota.testing import renewals_in_this_transaction
from django_quota.wallet import (
    Grant,
    agrant_credits,
    get_balance,
    grant_credits,
    grant_records,
    grants,
)
from django_quota.wallet.balances import kept_balance
from tests.helpers.balances import cache_balance
from tests.helpers.concurrency import begin_together, run_async
from tests.helpers.databases import losing_the_confirmation, needs_second_connection
from tests.sandbox_client import Person, Sandbox
from tests.shown import listening

pytestmark = pytest.mark.django_db(transaction=True)

FUNDING = "/v1/funding/oauth_user"
ASKED = [f"POST {FUNDING}"]
DOLLAR = 1_000_000


@pytest.fixture(autouse=True)
def developer(sandbox: Sandbox, settings: Any) -> str:
    """A developer with a dollar to give away, and no grants yet; the e-mail address at Quota."""
    email, session = sandbox.new_developer()
    settings.QUOTA_API_KEY = sandbox.api_key(session)
    sandbox.forget_requests()
    return email


@pytest.fixture
def user(person: Person, sandbox: Sandbox) -> Any:
    """Ada's user. A grant needs no token, so she need not sign in."""
    ada = get_user_model().objects.create(username="ada")
    ProviderAccount.objects.create(user=ada, external_id=sandbox.sub_of(person.email))
    return ada


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys that Quota was sent."""
    keys: list[str] = []
    real = wallet_api.fund_user

    def fund_user(api_key: str, **order: Any) -> wallet_api.FundingReply:
        keys.append(order["idempotency_key"])
        return real(api_key, **order)

    monkeypatch.setattr(wallet_api, "fund_user", fund_user)
    return keys


def fails(sandbox: Sandbox, status: int, *, after: bool = False, times: int = 1) -> None:
    """The next requests to fund a user fail: at once, or after they are carried out."""
    sandbox.set(fail={"path": FUNDING, "status": status, "after": after, "times": times})


class TestGrant:
    def test_moves_credits_from_the_developer_to_the_user(
        self, user: Any, person: Person, sandbox: Sandbox, developer: str
    ) -> None:
        grant = grant_credits(user, 250_000, reason="free trial", idempotency_key="trial-1")

        assert sandbox.requests() == ASKED
        assert sandbox.balance_of(person.email) == DOLLAR + 250_000
        assert sandbox.balance_of(developer) == DOLLAR - 250_000
        row = CreditGrant.objects.get()
        assert row.granted_at is not None
        assert grant == Grant(
            idempotency_key="trial-1",
            credits=250_000,
            reason="free trial",
            balance_after=DOLLAR + 250_000,
            ledger_id=row.ledger_id,
            granted_at=row.granted_at,
        )
        assert (row.user, row.external_id) == (user, ProviderAccount.objects.get().external_id)
        assert row.ledger_id.startswith("led_")
        assert row.granted_by == ""

    def test_same_key_again_returns_the_grant_without_a_request(
        self, user: Any, sandbox: Sandbox
    ) -> None:
        first = grant_credits(user, 5, idempotency_key="trial-1")
        sandbox.forget_requests()
        assert grant_credits(user, 5, reason="again", idempotency_key="trial-1") == first
        assert sandbox.requests() == []

    def test_without_a_key_each_call_is_another_grant(
        self, user: Any, person: Person, sandbox: Sandbox
    ) -> None:
        one, two = grant_credits(user, 5), grant_credits(user, 5)
        assert one.idempotency_key != two.idempotency_key
        assert sandbox.balance_of(person.email) == DOLLAR + 10
        assert grant_credits(user, 5, idempotency_key=one.idempotency_key) == one

    def test_next_page_asks_for_the_balance(self, user: Any) -> None:
        cache_balance(user, 1)
        grant_credits(user, 5)
        assert kept_balance(user) is None

    def test_is_announced_once(self, user: Any) -> None:
        with listening(signals.credits_granted) as heard:
            grant = grant_credits(user, 5, idempotency_key="trial-1")
            grant_credits(user, 5, idempotency_key="trial-1")
        assert [(said["user"], said["grant"]) for said in heard] == [(user, grant)]

    def test_error_of_a_receiver_does_not_reach_the_caller(self, user: Any) -> None:
        def broken(**said: Any) -> None:
            raise ValueError("no")

        signals.credits_granted.connect(broken)
        try:
            assert grant_credits(user, 5).credits == 5
        finally:
            signals.credits_granted.disconnect(broken)

    def test_member_of_staff_is_recorded(self, user: Any) -> None:
        grant_credits(user, 5, granted_by="n" * 300)
        assert CreditGrant.objects.get().granted_by == "n" * 255

    def test_async_twin(self, user: Any) -> None:
        async def main() -> Grant:
            grant: Grant = await agrant_credits(user, 5, idempotency_key="trial-1")
            return grant

        assert run_async(main()).credits == 5

    def test_on_an_event_loop_the_error_names_the_twin(self, user: Any) -> None:
        async def main() -> None:
            grant_credits(user, 5)

        with pytest.raises(ConfigurationError, match="await agrant_credits"):
            run_async(main())

    def test_grant_outlives_the_user(self, user: Any) -> None:
        grant_credits(user, 5, idempotency_key="trial-1")
        other = get_user_model().objects.create(username="other")
        user.delete()
        assert CreditGrant.objects.get().user is None
        with pytest.raises(IdempotencyKeyRefused):
            grant_credits(other, 5, idempotency_key="trial-1")


class Amount(IntEnum):
    ONE = 1


class TestBadInput:
    @pytest.mark.parametrize("credits", [True, 1.0, "5", None, Amount.ONE])
    def test_credits_of_another_type(self, user: Any, credits: Any, sandbox: Sandbox) -> None:
        with pytest.raises(TypeError, match=r"credits must be an int.*1,000,000 credits are"):
            grant_credits(user, credits)
        assert sandbox.requests() == [] and not CreditGrant.objects.exists()

    @pytest.mark.parametrize("credits", [0, -1, 1 << 63])
    def test_credits_out_of_range(self, user: Any, credits: int, sandbox: Sandbox) -> None:
        with pytest.raises(ValueError, match="credits must be from 1"):
            grant_credits(user, credits)
        assert sandbox.requests() == [] and not CreditGrant.objects.exists()

    @pytest.mark.parametrize("key", ["", "x" * 101, "a b", "a~2", "a\n", "ä", "a\x00"])
    def test_key_that_no_header_can_hold(self, user: Any, key: str) -> None:
        with pytest.raises(ValueError, match="idempotency_key must be 1 to 100"):
            grant_credits(user, 5, idempotency_key=key)

    @pytest.mark.parametrize("name", ["idempotency_key", "reason"])
    def test_text_that_is_none(self, user: Any, name: str) -> None:
        options: dict[str, Any] = {name: 5}
        with pytest.raises(TypeError, match=f"{name} must be a str"):
            grant_credits(user, 5, **options)

    @pytest.mark.parametrize("reason", ["x" * 201, "two\nlines", "\x00", "\ud800"])
    def test_reason_that_no_ledger_can_hold(self, user: Any, reason: str) -> None:
        with pytest.raises(ValueError, match="reason must be one line"):
            grant_credits(user, 5, reason=reason)

    def test_largest_amount_reaches_quota(self, user: Any) -> None:
        with pytest.raises(ConfigurationError, match="top it up"):
            grant_credits(user, (1 << 63) - 1)

    def test_user_without_a_wallet(self, sandbox: Sandbox) -> None:
        nobody = get_user_model().objects.create(username="nobody")
        with pytest.raises(NotConnected):
            grant_credits(nobody, 5)
        assert sandbox.requests() == [] and not CreditGrant.objects.exists()

    def test_user_who_is_not_saved(self) -> None:
        for nobody in (get_user_model()(username="new"), AnonymousUser()):
            with pytest.raises(NotConnected, match="not saved"):
                grant_credits(nobody, 5)

    def test_what_is_no_user(self, user: Any) -> None:
        with pytest.raises(TypeError, match="is not a user"):
            grant_credits(ProviderAccount.objects.get(), 5)

    def test_missing_api_key_is_named_before_anything_is_recorded(
        self, user: Any, settings: Any
    ) -> None:
        settings.QUOTA_API_KEY = None
        with pytest.raises(ConfigurationError, match="QUOTA_API_KEY is missing"):
            grant_credits(user, 5)
        assert not CreditGrant.objects.exists()

    @pytest.mark.parametrize("change", ["credits", "user"])
    def test_key_of_another_grant(self, user: Any, sandbox: Sandbox, change: str) -> None:
        grant_credits(user, 5, idempotency_key="trial-1")
        other = get_user_model().objects.create(username="other")
        ProviderAccount.objects.create(user=other, external_id="other")
        sandbox.forget_requests()
        who, credits = (user, 6) if change == "credits" else (other, 5)
        with pytest.raises(IdempotencyKeyRefused, match="trial-1 belongs to a grant of 5 credits"):
            grant_credits(who, credits, idempotency_key="trial-1")
        assert sandbox.requests() == []

    def test_keys_differ_by_case(self, user: Any) -> None:
        grant_credits(user, 5, idempotency_key="trial-a")
        grant_credits(user, 6, idempotency_key="trial-A")
        assert CreditGrant.objects.count() == 2


class TestLostAnswer:
    """The credits are there, but nobody has said so."""

    @pytest.mark.parametrize("status", [500, 502, 503, 504, 408, 425])
    def test_is_repeated_with_the_key_and_credited_once(
        self, user: Any, person: Person, sandbox: Sandbox, status: int, sent: list[str]
    ) -> None:
        fails(sandbox, status, after=True)
        with pytest.raises(GrantUnconfirmed, match="again with idempotency_key='trial-1'"):
            grant_credits(user, 5, idempotency_key="trial-1")
        row = CreditGrant.objects.get()
        assert (row.granted_at, row.unanswered) == (None, 1)

        grant = grant_credits(user, 5, reason="other words", idempotency_key="trial-1")

        assert sandbox.balance_of(person.email) == grant.balance_after == DOLLAR + 5
        assert sent == ["trial-1"] * 2
        assert CreditGrant.objects.get().last_failure == ""

    def test_error_has_the_key_that_was_generated(
        self, user: Any, person: Person, sandbox: Sandbox
    ) -> None:
        fails(sandbox, 504, after=True)
        with pytest.raises(GrantUnconfirmed) as lost:
            grant_credits(user, 5)
        grant_credits(user, 5, idempotency_key=lost.value.idempotency_key)
        assert sandbox.balance_of(person.email) == DOLLAR + 5

    def test_is_announced_when_it_is_known(self, user: Any, sandbox: Sandbox) -> None:
        fails(sandbox, 504, after=True)
        with listening(signals.credits_granted) as heard:
            with pytest.raises(GrantUnconfirmed):
                grant_credits(user, 5, idempotency_key="trial-1")
            assert heard == []
            grant_credits(user, 5, idempotency_key="trial-1")
        assert len(heard) == 1

    def test_repetition_goes_to_the_wallet_that_may_have_got_it(
        self, user: Any, person: Person, sandbox: Sandbox
    ) -> None:
        fails(sandbox, 504, after=True)
        with pytest.raises(GrantUnconfirmed):
            grant_credits(user, 5, idempotency_key="trial-1")
        ProviderAccount.objects.update(external_id="another wallet")
        grant_credits(user, 5, idempotency_key="trial-1")
        assert sandbox.balance_of(person.email) == DOLLAR + 5

    def test_refusal_of_a_repetition_proves_nothing_about_the_first_request(
        self, user: Any, person: Person, sandbox: Sandbox, sent: list[str]
    ) -> None:
        fails(sandbox, 504, after=True)
        with pytest.raises(GrantUnconfirmed):
            grant_credits(user, 5, idempotency_key="trial-1")
        for status in (402, 401, 429):
            fails(sandbox, status)
            with pytest.raises((ConfigurationError, RateLimited)):
                grant_credits(user, 5, idempotency_key="trial-1")
        grant_credits(user, 5, idempotency_key="trial-1")
        assert set(sent) == {"trial-1"}
        assert sandbox.balance_of(person.email) == DOLLAR + 5

    def test_is_not_repeated_when_quota_may_have_forgotten_the_key(
        self, user: Any, sandbox: Sandbox
    ) -> None:
        fails(sandbox, 504, after=True)
        with pytest.raises(GrantUnconfirmed):
            grant_credits(user, 5, idempotency_key="trial-1")
        period = grant_records.KEY_PERIOD
        CreditGrant.objects.update(asked_at=timezone.now() - period - timedelta(seconds=1))
        sandbox.forget_requests()
        with pytest.raises(IdempotencyKeyRefused, match="could credit twice"):
            grant_credits(user, 5, idempotency_key="trial-1")
        assert sandbox.requests() == []

    def test_without_a_confirmation_in_the_database_it_is_repeated(
        self, user: Any, person: Person, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(grants, "SAVE_PATIENCE", 0)

        def away(*args: Any) -> None:
            raise OperationalError("the database is away")

        with monkeypatch.context() as patch:
            patch.setattr(grant_records, "confirm", away)
            with pytest.raises(GrantUnconfirmed, match="not saved: OperationalError"):
                grant_credits(user, 5, idempotency_key="trial-1")
        grant_credits(user, 5, idempotency_key="trial-1")
        assert sandbox.balance_of(person.email) == DOLLAR + 5

    @pytest.mark.parametrize("commit", [1, 2])
    def test_commit_whose_confirmation_is_lost(
        self, user: Any, person: Person, sandbox: Sandbox, commit: int
    ) -> None:
        with losing_the_confirmation(of=commit):
            grant_credits(user, 5, idempotency_key="trial-1")
        assert CreditGrant.objects.get().granted_at
        assert sandbox.balance_of(person.email) == DOLLAR + 5


class TestRefusal:
    """Quota has certainly credited nothing."""

    def test_empty_wallet_of_the_developer(
        self, user: Any, person: Person, sandbox: Sandbox, developer: str, sent: list[str]
    ) -> None:
        """The user cannot buy the developer's credits, so it is none of the user's errors."""
        sandbox.set_balance(developer, 4)
        with pytest.raises(ConfigurationError, match=r"Your own wallet .* same idempotency_key"):
            grant_credits(user, 5, idempotency_key="trial-1")
        row = CreditGrant.objects.get()
        assert (row.granted_at, row.unanswered, row.last_failure) == (None, 0, "not_configured")

        sandbox.set_balance(developer, 5)
        grant_credits(user, 5, idempotency_key="trial-1")

        assert sent == ["trial-1", "trial-1~2"]  # under the first key, Quota refuses it for ever
        assert sandbox.balance_of(person.email) == DOLLAR + 5
        assert sandbox.balance_of(developer) == 0

    def test_repetition_long_after_a_refusal(
        self, user: Any, person: Person, sandbox: Sandbox, developer: str
    ) -> None:
        sandbox.set_balance(developer, 4)
        for _ in range(3):
            with pytest.raises(ConfigurationError):
                grant_credits(user, 5, idempotency_key="trial-1")
            CreditGrant.objects.update(asked_at=timezone.now() - timedelta(days=40))
        sandbox.set_balance(developer, DOLLAR)
        grant_credits(user, 5, idempotency_key="trial-1")
        assert sandbox.balance_of(person.email) == DOLLAR + 5

    @pytest.mark.parametrize("status", [401, 403])
    def test_refused_api_key(self, user: Any, sandbox: Sandbox, status: int) -> None:
        fails(sandbox, status)
        with pytest.raises(ConfigurationError, match="Quota refuses QUOTA_API_KEY"):
            grant_credits(user, 5, idempotency_key="trial-1")
        assert grant_credits(user, 5, idempotency_key="trial-1").balance_after == DOLLAR + 5

    def test_user_whom_quota_does_not_know(self, user: Any, sandbox: Sandbox) -> None:
        ProviderAccount.objects.update(external_id="unknown")
        with pytest.raises(RequestRefused, match="HTTP 404 user_not_found") as refused:
            grant_credits(user, 5)
        assert refused.value.provider_code == "user_not_found"
        assert CreditGrant.objects.get().last_failure == "user_not_found"

    def test_rate_limit(self, user: Any, sandbox: Sandbox) -> None:
        sandbox.set(fail={"path": FUNDING, "status": 429, "retry_after": 7})
        with pytest.raises(RateLimited) as refused:
            grant_credits(user, 5)
        assert refused.value.retry_after == 7
        assert CreditGrant.objects.get().unanswered == 0

    def test_quota_that_cannot_be_reached(
        self, user: Any, person: Person, sandbox: Sandbox, settings: Any
    ) -> None:
        settings.QUOTA_BASE_URL = "http://127.0.0.1:1"
        with pytest.raises(ProviderUnavailable) as failed:
            grant_credits(user, 5, idempotency_key="trial-1")
        assert not failed.value.request_sent
        assert CreditGrant.objects.get().unanswered == 0
        settings.QUOTA_BASE_URL = sandbox.origin
        grant_credits(user, 5, idempotency_key="trial-1")
        assert sandbox.balance_of(person.email) == DOLLAR + 5

    def test_key_that_quota_has_for_another_grant(self, user: Any, sandbox: Sandbox) -> None:
        """Of another site with the same developer, which has another database."""
        grant_credits(user, 5, idempotency_key="trial-1")
        CreditGrant.objects.all().delete()
        with pytest.raises(IdempotencyKeyRefused, match="HTTP 409"):
            grant_credits(user, 6, idempotency_key="trial-1")
        assert CreditGrant.objects.get().unanswered == 1

    def test_failure_that_cannot_be_noted_is_raised_nevertheless(
        self, user: Any, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def away(*args: Any, **options: Any) -> None:
            raise OperationalError("the database is away")

        monkeypatch.setattr(grant_records, "note_failure", away)
        fails(sandbox, 402)
        with pytest.raises(ConfigurationError):
            grant_credits(user, 5)
        assert CreditGrant.objects.get().unanswered == 1  # the same key is sent again


class TestAtOnce:
    def test_one_key_is_credited_once_and_all_get_the_same_grant(
        self, user: Any, person: Person, sandbox: Sandbox
    ) -> None:
        give = partial(grant_credits, user, 5, idempotency_key="trial-1")
        with listening(signals.credits_granted) as heard:
            got = begin_together([give] * 4)
        assert len(set(got)) == len(heard) == 1
        assert sandbox.balance_of(person.email) == DOLLAR + 5

    def test_failure_here_is_none_if_another_process_has_confirmed_meanwhile(
        self, user: Any, person: Person, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = wallet_api.fund_user
        others: list[Grant] = []

        def fund_user(api_key: str, **order: Any) -> wallet_api.FundingReply:
            monkeypatch.setattr(wallet_api, "fund_user", real)
            others.append(grant_credits(user, 5, idempotency_key="trial-1"))
            raise IdempotencyKeyRefused("another request is under way", status=409)

        monkeypatch.setattr(wallet_api, "fund_user", fund_user)
        assert grant_credits(user, 5, idempotency_key="trial-1") == others[0]
        assert sandbox.balance_of(person.email) == DOLLAR + 5

    def test_refusal_of_one_request_does_not_renew_the_key_of_another(
        self, user: Any, person: Person, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One is refused while the other is under way: the third must send what that one sent."""
        keys: list[str] = []
        real = wallet_api.fund_user
        steps: list[Callable[[], Any]] = []

        def fund_user(api_key: str, **order: Any) -> wallet_api.FundingReply:
            keys.append(order["idempotency_key"])
            if steps:
                return steps.pop(0)()
            return real(api_key, **order)

        def give() -> Grant:
            return grant_credits(user, 5, idempotency_key="trial-1")

        def refuse() -> None:
            raise ConfigurationError("the wallet is empty")

        def slow() -> None:
            with pytest.raises(ConfigurationError):
                give()
            give()
            raise ProviderUnavailable("no answer")

        monkeypatch.setattr(wallet_api, "fund_user", fund_user)
        steps += [slow, refuse]
        give()
        assert keys == ["trial-1"] * 3
        assert sandbox.balance_of(person.email) == DOLLAR + 5


class TestInATransaction:
    @needs_second_connection
    def test_rollback_does_not_remove_the_record(
        self, user: Any, person: Person, sandbox: Sandbox
    ) -> None:
        with pytest.raises(ValueError, match="view"), transaction.atomic():
            get_user_model().objects.create(username="of the view")
            grant_credits(user, 5, idempotency_key="trial-1")
            raise ValueError("the view fails")
        assert CreditGrant.objects.get().granted_at
        assert not get_user_model().objects.filter(username="of the view").exists()
        grant_credits(user, 5, idempotency_key="trial-1")
        assert sandbox.balance_of(person.email) == DOLLAR + 5

    @needs_second_connection
    def test_user_whom_it_has_created(self, sandbox: Sandbox) -> None:
        with transaction.atomic():
            new = get_user_model().objects.create(username="new")
            ProviderAccount.objects.create(user=new, external_id="new")
            with pytest.raises(RefreshImpossibleHere, match=r"transaction\.on_commit"):
                grant_credits(new, 5)
        assert sandbox.requests() == []

    @needs_second_connection
    def test_user_without_a_wallet(self) -> None:
        with transaction.atomic(), pytest.raises(NotConnected):
            grant_credits(get_user_model().objects.create(username="nobody"), 5)

    @needs_second_connection
    def test_user_whom_it_has_locked(self, user: Any, sandbox: Sandbox) -> None:
        with transaction.atomic():
            get_user_model().objects.select_for_update().get(pk=user.pk)
            with pytest.raises(ProviderUnavailable, match="has locked the user") as refused:
                grant_credits(user, 5)
        assert not refused.value.request_sent
        assert sandbox.requests() == []

    def test_on_sqlite_it_is_refused_before_quota_is_asked(
        self, user: Any, sandbox: Sandbox
    ) -> None:
        if connection.vendor != "sqlite":
            pytest.skip("the others have a second connection")
        with transaction.atomic(), pytest.raises(RefreshImpossibleHere, match="on_commit"):
            grant_credits(user, 5)
        assert sandbox.requests() == [] and not CreditGrant.objects.exists()

    def test_after_the_commit(self, user: Any, person: Person, sandbox: Sandbox) -> None:
        with transaction.atomic():
            transaction.on_commit(partial(grant_credits, user, 5))
        assert sandbox.balance_of(person.email) == DOLLAR + 5

    def test_that_a_test_runs_in(self, user: Any) -> None:
        with renewals_in_this_transaction(), transaction.atomic():
            grant = grant_credits(user, 5, idempotency_key="trial-1")
            assert grant_credits(user, 5, idempotency_key="trial-1") == grant


class TestApiKey:
    """The developer's key pays for grants, and for nothing else."""

    def test_of_no_user_pays_for_ai_calls(self, user: Any, sandbox: Sandbox) -> None:
        with pytest.raises(NotConnected):
            factory.openai_client(user).models.list()
        with pytest.raises(NotConnected):
            get_balance(user)
        assert sandbox.requests() == []

    def test_no_token_of_the_user_is_needed_or_read(
        self, user: Any, person: Person, sandbox: Sandbox
    ) -> None:
        assert not QuotaToken.objects.exists()
        grant_credits(user, 5)
        assert sandbox.requests() == ASKED
        assert sandbox.balance_of(person.email) == DOLLAR + 5


def test_database_that_is_away_is_found_before_quota_is_asked(
    user: Any, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*args: Any) -> None:
        raise OperationalError("connection refused")

    monkeypatch.setattr(grants.locking, "LOCK_WAIT", 0)
    monkeypatch.setattr(grant_records, "begin", away)
    with pytest.raises(ProviderUnavailable, match="Quota was not asked") as failed:
        grant_credits(user, 5)
    assert not failed.value.request_sent
    assert sandbox.requests() == []


def test_balance_that_cannot_be_forgotten_does_not_cost_the_grant(
    user: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(user: Any) -> None:
        raise OperationalError("the database is away")

    monkeypatch.setattr(grants, "forget_balance", broken)
    assert grant_credits(user, 5).credits == 5
    assert "the cached balance may be old" in caplog.text
