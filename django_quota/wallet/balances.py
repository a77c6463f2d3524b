"""The cached balance. An older balance never replaces a newer one.

A balance comes from three sources, in any order: a request for it, the reply to an AI call, and a
webhook.
"""

import time
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django_quota import money
from django_quota.conf import get_settings
from django_quota.tokens.lookup import wallet_of

from . import caching

#: Two balances that are fewer seconds apart may be in either order: clocks differ, and so do the
#: times that two replies need.
MIN_SECONDS_APART = 3


@dataclass(frozen=True, kw_only=True)
class Balance:
    """The balance of a wallet.

    `credits` (int) is negative after a stream that cost more than was left. It is None if the user
    has signed in, but has no wallet linked to this app.
    """

    credits: int | None

    @property
    def dollars(self) -> Decimal | None:
        """The balance in US dollars, exactly; None if there is no wallet."""
        return None if self.credits is None else money.dollars(self.credits)

    @property
    def display(self) -> str:
        """The balance as people read it, such as "$1.00"; "" if there is no wallet."""
        return "" if self.credits is None else money.format_usd(self.credits)

    @property
    def state(self) -> str:
        """One of "available", "low" (below QUOTA_LOW_BALANCE) and "no_wallet"."""
        if self.credits is None:
            return "no_wallet"
        return "low" if self.credits < get_settings().low_balance else "available"


def _key(user: Any, *, anew: bool = False) -> str:
    return f"django_quota.balance.{wallet_of(user, anew=anew)}"


def kept_balance(user: Any) -> Balance | None:
    """Return the cached balance, at most QUOTA_BALANCE_TTL (30) seconds old; None if unknown."""
    kept = caching.get(_key(user))
    credits = kept.get("credits", "") if isinstance(kept, dict) else ""
    return Balance(credits=credits) if credits is None or type(credits) is int else None


def keep_balance(
    user: Any,
    balance: Balance,
    *,
    as_of: float,
    until: float | None = None,
    by_quota_clock: bool = False,
    charged: bool = False,
) -> None:
    """Cache `balance`, unless the cached one is newer than `as_of` (Unix time).

    For a balance that was requested, `as_of` is the time of the request and `until` that of the
    reply: the balance was right at some moment between them. For a balance after an AI call
    (`charged`), `as_of` is the time of the reply. With `by_quota_clock`, `as_of` is by Quota's
    clock, not by ours. If either balance may be the newer one, the next reader asks Quota.
    """
    entry = {"credits": balance.credits, "by_quota_clock": by_quota_clock, "charged": charged}
    _save(_key(user), entry, as_of, as_of if until is None else until)


def forget_balance(user: Any) -> None:
    """Drop the cached balance, so that the next reader asks Quota.

    A balance that was requested before this call is not cached either when it arrives.
    """
    now = time.time()
    # The user may have connected another wallet since this object was loaded.
    _save(_key(user, anew=True), {}, now, now)


def _save(key: str, values: dict[str, Any], as_of: float, until: float) -> None:
    now = time.time()
    # Quota's clock may be ahead of ours: its times must not be later than what we see next.
    as_of = min(as_of, now)
    entry = {**values, "as_of": as_of, "until": min(until, now)}
    ttl = get_settings().balance_ttl
    unclear = {"as_of": now, "unclear": True}

    def write() -> bool:
        kept = caching.get(key)
        kept = kept if isinstance(kept, dict) else {}
        if _is_order_unclear(kept, entry):
            caching.keep(key, unclear, ttl)
        elif not _is_newer(kept, as_of):
            caching.keep(key, entry, ttl - (now - as_of))
        return True

    # Without the lock it is not known which one is newer, so the next reader asks Quota.
    if not caching.change(key, write):
        caching.keep(key, unclear, ttl)


def _is_order_unclear(kept: dict[str, Any], entry: dict[str, Any]) -> bool:
    """Return True if the two balances differ, and either may be the newer one.

    Two clocks differ, and of two replies at the same time the later one may be saved first. Calls
    only lower a balance, so on one clock only a rise contradicts the earlier balance.
    """
    if not isinstance(kept.get("as_of"), float):
        return False
    if kept.get("unclear"):
        # The replies of further calls do not settle it; only a new request does.
        return bool(entry.get("charged")) and entry["as_of"] < kept["as_of"] + MIN_SECONDS_APART
    old, new = kept.get("credits"), entry.get("credits")
    if type(old) is not int or type(new) is not int or old == new:
        return False
    first, second = sorted((kept, entry), key=lambda one: one["as_of"])
    seconds_apart = second["as_of"] - first.get("until", first["as_of"])
    two_clocks = bool(kept.get("by_quota_clock")) is not entry["by_quota_clock"]
    rises = second["credits"] > first["credits"]
    return seconds_apart < MIN_SECONDS_APART and (two_clocks or rises)


def _is_newer(kept: dict[str, Any], as_of: float) -> bool:
    known = kept.get("as_of")
    # A time in the future was written before this host's clock was set back.
    return isinstance(known, float) and as_of < known <= time.time()
