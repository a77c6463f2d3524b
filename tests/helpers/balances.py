"""A balance in the cache, as after an answer of Quota."""

from __future__ import annotations

from typing import Any

from django_quota.wallet.balances import Balance, begin_request, keep_balance

__all__ = ["cache_balance"]


def cache_balance(user: Any, credits: int | None) -> None:
    """Have pages show `credits` to `user`."""
    keep_balance(begin_request(user), Balance(credits=credits))
