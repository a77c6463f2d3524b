"""django_quota.money: credits are whole numbers inside, and dollars for people."""

from __future__ import annotations

import doctest
from decimal import Decimal, localcontext

import pytest

from django_quota import money
from django_quota.money import CREDITS_PER_DOLLAR, dollars, format_usd


@pytest.mark.parametrize(
    ("credits", "text"),
    [
        (0, "$0.00"),
        (1, "$0.000001"),
        (10, "$0.00001"),
        (100, "$0.0001"),
        (1_000, "$0.001"),
        (10_000, "$0.01"),
        (100_000, "$0.10"),
        (998_800, "$0.9988"),
        (999_999, "$0.999999"),
        (1_000_000, "$1.00"),
        (1_500_000, "$1.50"),
        (1_000_000_000, "$1,000.00"),
        (1_234_000_001, "$1,234.000001"),
        (-1, "-$0.000001"),
        (-50_000, "-$0.05"),
        (-1_500_000, "-$1.50"),
        (2**63 - 1, "$9,223,372,036,854.775807"),
    ],
)
def test_for_people(credits: int, text: str) -> None:
    assert format_usd(credits) == text


@pytest.mark.parametrize(
    ("credits", "amount"),
    [
        (0, "0"),
        (1, "0.000001"),
        (1_000_000, "1"),
        (-50_000, "-0.05"),
        (2**63 - 1, "9223372036854.775807"),
    ],
)
def test_dollars_are_exact(credits: int, amount: str) -> None:
    assert dollars(credits) == Decimal(amount)


def test_dollars_are_exact_whatever_precision_the_project_works_with() -> None:
    with localcontext() as context:
        context.prec = 6
        amount = dollars(1_234_567_891)

    assert amount == Decimal("1234.567891")


def test_a_dollar_is_a_million_credits() -> None:
    assert CREDITS_PER_DOLLAR == 1_000_000
    assert dollars(CREDITS_PER_DOLLAR) == 1


def test_the_examples_in_the_docstrings_hold() -> None:
    outcome = doctest.testmod(money)

    assert outcome.attempted > 0
    assert outcome.failed == 0
