"""The age of a time, by clocks that may be set back."""

from datetime import timedelta

import pytest

from django_quota.tokens.clock import is_recent


@pytest.mark.parametrize(
    ("age", "expected"), [(-1.0, False), (0.0, True), (9.0, True), (10.0, False)]
)
def test_only_an_age_from_zero_to_the_limit_is_recent(age: float, expected: bool) -> None:
    assert is_recent(age, 10.0) is expected
    assert is_recent(timedelta(seconds=age), timedelta(seconds=10)) is expected


@pytest.mark.parametrize(("age", "expected"), [(-3.0, False), (-2.0, True), (-1.0, True)])
def test_clock_of_another_host_may_be_ahead_by_so_much(age: float, expected: bool) -> None:
    assert is_recent(age, 10.0, ahead=2.0) is expected
