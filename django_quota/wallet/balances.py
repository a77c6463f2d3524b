"""The balance of a wallet, and Django's cache of it.

Each wallet has a version in the cache: a random name, under which its balance is cached. A change
of the balance gives the wallet a new version. So the answer to an earlier request is cached under a
version that is not read any more, without a lock and in whatever order the writes come.
"""

import time
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django_quota import money
from django_quota.conf import get_settings
from django_quota.tokens.clock import is_recent
from django_quota.tokens.wallet_name import wallet_of

from . import caching

#: The replies of two calls that are fewer seconds apart may be in either order.
MIN_SECONDS_APART = 2


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


@dataclass(frozen=True, kw_only=True)
class PageBalance:
    """What a page shows of a wallet: its balance, or why there is none.

    `state` is `Balance.state` ("available", "low" or "no_wallet"), or "unavailable" while Quota
    cannot be asked, or "" for a user who is not connected. The last two have no balance.
    """

    state: str
    balance: Balance | None = None


UNAVAILABLE = PageBalance(state="unavailable")
NOT_CONNECTED = PageBalance(state="")


def kept_balance(user: Any) -> Balance | None:
    """Return the cached balance, at most QUOTA_BALANCE_TTL (30) seconds old; None if unknown."""
    version = caching.get(_key(user))
    kept = caching.get(_balance_key(version)) if isinstance(version, str) else None
    credits = kept.get("credits", "") if isinstance(kept, dict) else ""
    return Balance(credits=credits) if credits is None or type(credits) is int else None


def begin_request(user: Any) -> str:
    """Return the version under which to cache the balance that Quota is asked for now."""
    key = _key(user)
    _note_news(key)
    version = caching.get(key)
    return version if isinstance(version, str) else _write_version(key)


def keep_balance(version: str, balance: Balance, *, age: float = 0) -> None:
    """Cache the answer of Quota to a request that began `age` seconds ago with `begin_request`.

    Nobody will see it if the balance has changed since.
    """
    seconds = get_settings().balance_ttl - age
    caching.keep(_balance_key(version), {"credits": balance.credits}, seconds)


def keep_balance_after_call(user: Any, balance: Balance, *, arrived_at: float) -> None:
    """Cache the balance in the reply to an AI call, if no newer one can be known.

    `arrived_at` is the time of the reply's arrival (Unix time). If another reply is recorded at
    about the same time, either may be the newer one, so the next reader asks Quota. The next reader
    also asks if the balance is higher than the cached one: a call only lowers it, so this reply may
    be an older one that was read late.
    """
    key, seconds = _key(user), 2 * MIN_SECONDS_APART
    known = kept_balance(user)
    version = _write_version(key)
    is_alone = caching.claim(f"{key}.call", seconds)
    is_late = not is_recent(time.time() - arrived_at, MIN_SECONDS_APART)
    if (
        is_alone
        and not is_late
        and _latest_news(key) <= arrived_at
        and not _is_higher(balance, known)
    ):
        keep_balance(version, balance)
    else:
        # Claim for longer first: another reply either fails to claim, or has its version replaced.
        caching.keep(f"{key}.call", True, seconds)
        _write_version(key)


def _is_higher(balance: Balance, known: Balance | None) -> bool:
    if known is None or known.credits is None or balance.credits is None:
        return False
    return balance.credits > known.credits


def forget_balance(user: Any, *, anew: bool = True) -> None:
    """Drop the cached balance, so that the next reader asks Quota.

    A balance that was requested before this call is not shown either when it arrives. The user may
    have connected another wallet since this object was loaded, so it looks the wallet up, unless
    `anew` is False.
    """
    key = _key(user, anew=anew)
    _note_news(key)
    _write_version(key)


def _key(user: Any, *, anew: bool = False) -> str:
    return f"django_quota.balance_version.{wallet_of(user, anew=anew)}"


def _balance_key(version: str) -> str:
    return f"django_quota.balance.{version}"


def _write_version(key: str) -> str:
    """Give the wallet a new version, under which no balance is cached yet, and return it."""
    version = uuid.uuid4().hex
    caching.keep(key, version, 2 * get_settings().balance_ttl)
    return version


def _note_news(key: str) -> None:
    """Note for replies that arrived before now that they must not replace what is learned now."""
    caching.keep(f"{key}.news", time.time(), 2 * MIN_SECONDS_APART)


def _latest_news(key: str) -> float:
    at = caching.get(f"{key}.news")
    return at if isinstance(at, float) else 0
