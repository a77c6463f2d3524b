"""django_quota.money: credits are whole numbers inside, and dollars for people."""

from __future__ import annotations

import doctest
from decimal import Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_quota import money
from django_quota.money import CREDITS_PER_DOLLAR, dollars, format_exact_usd, format_usd


@pytest.mark.parametrize(
    ("credits", "text"),
    [
        (0, "$0.00"),
        (1, "<$0.0001"),
        (99, "<$0.0001"),
        (100, "$0.0001"),
        (149, "$0.0001"),
        (150, "$0.0002"),
        (1_000, "$0.0010"),
        (10_000, "$0.01"),
        (67_000, "$0.0670"),
        (100_000, "$0.10"),
        (998_800, "$0.9988"),
        (998_849, "$0.9988"),
        (998_850, "$0.9989"),
        (999_949, "$0.9999"),
        (999_950, "$1.00"),
        (1_000_000, "$1.00"),
        (1_004_999, "$1.00"),
        (1_005_000, "$1.01"),
        (1_500_000, "$1.50"),
        (1_000_000_000, "$1,000.00"),
        (1_234_000_001, "$1,234.00"),
        (-1, "-<$0.0001"),
        (-99, "-<$0.0001"),
        (-100, "-$0.0001"),
        (-50_000, "-$0.05"),
        (-1_500_000, "-$1.50"),
        (2**63 - 1, "$9,223,372,036,854.78"),
        (-(2**63), "-$9,223,372,036,854.78"),
    ],
)
def test_amount_on_a_page_has_two_decimals_or_four_below_a_dollar(credits: int, text: str) -> None:
    assert format_usd(credits) == text


@pytest.mark.parametrize(
    ("credits", "text"),
    [
        (0, "$0.00"),
        (1, "$0.000001"),
        (10, "$0.00001"),
        (100, "$0.0001"),
        (999_999, "$0.999999"),
        (1_000_000, "$1.00"),
        (1_234_000_001, "$1,234.000001"),
        (-1, "-$0.000001"),
        (-1_500_000, "-$1.50"),
        (2**63 - 1, "$9,223,372,036,854.775807"),
    ],
)
def test_exact_amount_has_all_its_decimals(credits: int, text: str) -> None:
    assert format_exact_usd(credits) == text


@given(credits=st.integers(min_value=-(2**63), max_value=2**63 - 1))
def test_amount_on_a_page_is_the_nearest_one(credits: int) -> None:
    shown = format_usd(credits)
    if "<" in shown:
        assert 0 < abs(credits) < 100
        return
    value = Decimal(shown.replace("$", "").replace(",", ""))
    step = Decimal("0.01") if abs(credits) >= CREDITS_PER_DOLLAR else Decimal("0.0001")
    assert abs(value - dollars(credits)) <= step / 2


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
