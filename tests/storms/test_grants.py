"""Whoever is killed while credits are granted: each grant is credited, and once.

`GRANT_KILLS=200 pytest tests/storms/test_grants.py` kills 200 processes instead of 40.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth import get_user_model

from django_quota.models import CreditGrant, ProviderAccount
from tests.sandbox_client import Person, Sandbox
from tests.storms.crew import Crew

pytestmark = [pytest.mark.storm, pytest.mark.django_db(transaction=True)]

KILLS = int(os.environ.get("GRANT_KILLS", "40"))
#: More steps than a grant has; see `crew.deadly`.
STEPS = 30
DOLLAR = 1_000_000


@pytest.fixture
def pair(sandbox: Sandbox) -> Iterator[Crew]:
    """Two processes that may give a dollar away."""
    _email, session = sandbox.new_developer()
    ours: dict[str, Any] = {
        "QUOTA_BASE_URL": sandbox.origin,
        "QUOTA_API_KEY": sandbox.api_key(session),
    }
    with Crew(2, **ours) as crew:
        yield crew


@pytest.fixture
def user(person: Person, sandbox: Sandbox) -> Any:
    ada = get_user_model().objects.create(username="ada")
    ProviderAccount.objects.create(user=ada, external_id=sandbox.sub_of(person.email))
    return ada


def state_of(key: str) -> str:
    row = CreditGrant.objects.filter(idempotency_key=key).first()
    return "no row" if row is None else "confirmed" if row.granted_at else "unconfirmed"


def test_killed_at_every_step(pair: Crew, user: Any, person: Person, sandbox: Sandbox) -> None:
    left = []
    for step in range(STEPS):
        key = f"trial-{step}"
        (died,) = pair.order("die_granting", crew=1, user=user.pk, key=key, step=step)
        left.append((state_of(key), sandbox.balance_of(person.email) == DOLLAR + 5 * (step + 1)))
        pair.order("grant", crew=1, user=user.pk, key=key)
        assert sandbox.balance_of(person.email) == DOLLAR + 5 * (step + 1)
        if not died:
            break
    assert not died
    # Before the row, between the row and the request, between the answer and the row, and after.
    assert set(left) == {
        ("no row", False),
        ("unconfirmed", False),
        ("unconfirmed", True),
        ("confirmed", True),
    }


def test_pairs_are_killed_and_repeat_it_at_once(
    pair: Crew, user: Any, person: Person, sandbox: Sandbox
) -> None:
    """Two processes are killed at any step of one grant, then both repeat it at the same time."""
    chance = random.Random(18)
    died = grants = 0
    while died < KILLS:
        key, each = f"trial-{grants}", [{"step": chance.randrange(STEPS)} for _ in range(2)]
        died += sum(pair.order("die_granting", user=user.pk, key=key, each=each))

        answers = pair.order("grant", user=user.pk, key=key)

        grants += 1
        assert len(set(answers)) == 1, answers
        assert sandbox.balance_of(person.email) == DOLLAR + 5 * grants, (key, each, answers)
    confirmed = CreditGrant.objects.exclude(granted_at=None)
    assert confirmed.count() == confirmed.values("ledger_id").distinct().count() == grants
    print(f"{died} kills, {grants} grants, each credited once")  # shown with -s
