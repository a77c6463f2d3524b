"""The balance that is shown: kept for a short while, a newer one never replaced by an older.

Quota tells it in three ways, and in no order: asked for it, in the reply to a call, by webhook.
"""

import time
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from . import caching, money
from .conf import get_settings

__all__ = ["Balance", "forget_balance", "keep_balance", "kept_balance"]


#: Seconds by which two clocks, and two replies at the same time, may differ.
UNCLEAR = 3


@dataclass(frozen=True, kw_only=True)
class Balance:
    """What is in a wallet: a whole number of credits, negative after an overshooting stream.

    `credits` is None where the user signed in but has no wallet linked to this app.
    """

    credits: int | None

    @property
    def dollars(self) -> Decimal | None:
        """The same in US dollars, exactly."""
        return None if self.credits is None else money.dollars(self.credits)

    @property
    def display(self) -> str:
        """For people: "$1.00"; "" where there is no wallet."""
        return "" if self.credits is None else money.format_usd(self.credits)

    @property
    def state(self) -> str:
        """ "available"; "low" below QUOTA_LOW_BALANCE; "no_wallet"."""
        if self.credits is None:
            return "no_wallet"
        return "low" if self.credits < get_settings().low_balance else "available"


def _key(user: Any) -> str:
    return f"django_quota.balance.{user.pk}"


def kept_balance(user: Any) -> Balance | None:
    """The balance if one is known that is at most QUOTA_BALANCE_TTL (30) seconds old."""
    kept = caching.get(_key(user))
    credits = kept.get("credits", "") if isinstance(kept, dict) else ""
    return Balance(credits=credits) if credits is None or type(credits) is int else None


def keep_balance(user: Any, balance: Balance, *, as_of: float, told: bool = False) -> None:
    """Show `balance` from now on, unless what is known is newer than `as_of` (Unix time).

    `told` if that is a time of Quota's clock, and not of ours. Where it cannot be said which of two
    is newer, Quota is asked at the next look.
    """
    _note(user, {"credits": balance.credits, "told": told}, as_of)


def forget_balance(user: Any) -> None:
    """Ask Quota at the next look: the wallet has changed in a way that nobody told us. What was
    asked before this, and is answered later, is not kept either."""
    _note(user, {}, time.time())


def _note(user: Any, what: dict[str, Any], as_of: float) -> None:
    key, now = _key(user), time.time()
    # Quota's clock may be ahead of ours; what it says of now must not outlast what we see later.
    as_of = min(as_of, now)
    note = {**what, "as_of": as_of}
    left = get_settings().balance_ttl - (now - as_of)

    def write() -> bool:
        kept = caching.get(key)
        if _is_unclear(kept, note):
            caching.keep(key, {"as_of": now}, get_settings().balance_ttl)
        elif not _is_newer(kept, as_of):
            caching.keep(key, note, left)
        return True

    # Without the lock nobody knows which is newer: then Quota is asked at the next look.
    if not caching.change(key, write):
        caching.keep(key, {"as_of": now}, get_settings().balance_ttl)


def _is_unclear(kept: Any, note: dict[str, Any]) -> bool:
    """Do the two contradict each other, and may either be the newer one? Two clocks differ, and of
    two replies at the same time the second may be recorded first: then the wallet seems to rise."""
    kept = kept if isinstance(kept, dict) else {}
    old, new, known = kept.get("credits"), note.get("credits"), kept.get("as_of")
    if type(old) is not int or type(new) is not int or old == new or not isinstance(known, float):
        return False
    of_two_clocks = bool(kept.get("told")) is not note["told"]
    return abs(note["as_of"] - known) < UNCLEAR and (of_two_clocks or new > old)


def _is_newer(kept: Any, as_of: float) -> bool:
    known = kept.get("as_of") if isinstance(kept, dict) else None
    # A time in the future is one of a clock that has been set back since.
    return isinstance(known, float) and as_of < known <= time.time()
