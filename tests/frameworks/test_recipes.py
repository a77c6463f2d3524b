"""Each framework bills the user of the call, and only them, and lets our errors through."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from django_quota.exceptions import (
    InsufficientCredits,
    InsufficientScope,
    ProviderUnavailable,
    QuotaError,
    find_quota_error,
)
from django_quota.models import QuotaToken, UsageRecord
from tests.frameworks.conftest import Payer, Recipe
from tests.helpers.concurrency import closes_connections, run_async
from tests.sandbox_client import Sandbox

pytestmark = [
    pytest.mark.framework,
    pytest.mark.django_db(transaction=True),
    # What the frameworks warn of is theirs.
    pytest.mark.filterwarnings("ignore"),
]

RENEWAL = "POST /oauth/token"
QUESTION = "Is this billed?"
#: Questions that cost different amounts, so that two calls on the wrong wallets do not cancel out.
QUESTIONS = ("Is this billed?", "Is this question, which is much longer, billed to somebody else?")
#: Of each of two users.
CALLS = 50
AT_ONCE = 8


def sides(recipe: Recipe) -> list[Callable[[Any, str], Any]]:
    """The ways to ask: synchronously, and in an event loop of its own."""
    found: list[Callable[[Any, str], Any]] = []
    if recipe.ask is not None:
        found.append(recipe.ask)
    if recipe.aask is not None:
        found.append(lambda user, question: run_async(recipe.aask(user, question)))
    return found


def raised(ask: Callable[[Any, str], Any], user: Any) -> QuotaError | None:
    """Our error in what `ask` raises, as QuotaMiddleware looks for it."""
    with pytest.raises(Exception) as caught:
        ask(user, QUESTION)
    return find_quota_error(caught.value)


def calls(sandbox: Sandbox) -> list[str]:
    seen = [request for request in sandbox.requests() if request.startswith("POST")]
    sandbox.forget_requests()
    return seen


def records(payer: Payer) -> list[int]:
    """What each recorded call of `payer` has cost, in credits."""
    found = UsageRecord.objects.filter(user=payer.user).values_list("credits_used", flat=True)
    return [int(credits) for credits in found if credits is not None]


def test_user_pays_and_the_call_is_recorded_once(
    recipe: Recipe, ada: Payer, grace: Payer, sandbox: Sandbox
) -> None:
    for number, ask in enumerate(sides(recipe), 1):
        assert ask(ada.user, QUESTION)
        assert calls(sandbox) == [f"POST {recipe.path}"]
        assert len(records(ada)) == number
        assert ada.balance() == 1_000_000 - sum(records(ada))
    assert (grace.balance(), records(grace)) == (5_000_000, [])


def test_refused_token_is_renewed_once(recipe: Recipe, ada: Payer, sandbox: Sandbox) -> None:
    call = f"POST {recipe.path}"
    for ask in sides(recipe):
        QuotaToken.objects.update(access_token="quota_token_spent")
        assert ask(ada.user, QUESTION)
        assert calls(sandbox) == [call, RENEWAL, call]


def test_errors_of_the_package_are_found(recipe: Recipe, ada: Payer, sandbox: Sandbox) -> None:
    """And no framework sends a call again that failed, and may have been billed."""
    expected = {402: InsufficientCredits, 403: InsufficientScope, 503: ProviderUnavailable}
    for ask in sides(recipe):
        for status, error in expected.items():
            sandbox.set(fail={"path": recipe.path, "status": status, "times": 9})
            assert type(raised(ask, ada.user)) is error, status
            assert calls(sandbox) == [f"POST {recipe.path}"], status


def test_two_users_at_once_in_threads(recipe: Recipe, ada: Payer, grace: Payer) -> None:
    ask = recipe.ask
    if ask is None:
        pytest.skip("only async")

    @closes_connections
    def run(number: int) -> None:
        payer = (ada, grace)[number % 2]
        assert ask(payer.user, QUESTIONS[number % 2])

    ask(ada.user, QUESTION)  # some frameworks are not imported by two threads at once
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(run, range(2 * CALLS)))
    assert_paid_by_each(ada, grace, extra=1)


def test_two_users_at_once_in_tasks(recipe: Recipe, ada: Payer, grace: Payer) -> None:
    if recipe.aask is None:
        pytest.skip("only synchronous")

    async def run(number: int, turns: asyncio.Semaphore) -> None:
        async with turns:
            payer = (ada, grace)[number % 2]
            assert await recipe.aask(payer.user, QUESTIONS[number % 2])

    async def main() -> None:
        turns = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*(run(number, turns) for number in range(2 * CALLS)))

    run_async(main())
    assert_paid_by_each(ada, grace, extra=0)


def assert_paid_by_each(ada: Payer, grace: Payer, *, extra: int) -> None:
    """Each has paid for their own question each time, and each call is recorded once."""
    mine, theirs = records(ada), records(grace)
    assert (len(mine), len(theirs)) == (CALLS + extra, CALLS)
    assert (len(set(mine)), len(set(theirs))) == (1, 1)
    assert set(mine) != set(theirs)
    assert ada.balance() == 1_000_000 - sum(mine)
    assert grace.balance() == 5_000_000 - sum(theirs)


def test_synchronous_recipe_works_in_a_view_that_async_code_calls(
    recipe: Recipe, ada: Payer, sandbox: Sandbox
) -> None:
    """As Django runs a synchronous view under ASGI."""
    ask = recipe.ask
    if ask is None:
        pytest.skip("only async")

    async def main() -> None:
        assert await sync_to_async(ask)(ada.user, QUESTION)

    run_async(main())
    assert calls(sandbox) == [f"POST {recipe.path}"]
