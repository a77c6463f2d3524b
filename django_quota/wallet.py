"""A user's wallet: what is in it, what a call cost, and how to put more in."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.core.cache import cache
from django.views.decorators.debug import sensitive_variables

from . import money, provider, tokens
from .conf import get_settings
from .exceptions import (
    NotConnected,
    QuotaError,
    ReauthenticationRequired,
    RequestRefused,
)
from .provider import Package
from .transport import within

__all__ = [
    "Balance",
    "Package",
    "Usage",
    "acreate_checkout",
    "aget_balance",
    "aget_packages",
    "balance_for_page",
    "create_checkout",
    "forget_balance",
    "forget_packages",
    "get_balance",
    "get_packages",
    "record_usage",
]

logger = logging.getLogger("django_quota.wallet")
T = TypeVar("T")

#: The most that a page waits for a balance, in seconds, and for how long it then does without.
PAGE_WAIT = 2
PAGE_COOL_DOWN = 15
PACKAGES_TTL = 300
_UNAVAILABLE = "unavailable"
_PACKAGES_KEY = "django_quota.packages"


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


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What one AI call cost, in credits, and what it left in the wallet (None if not said)."""

    credits_used: int
    balance_after: int | None

    @property
    def cost(self) -> str:
        """For people: "$0.0042"."""
        return money.format_usd(self.credits_used)

    @property
    def balance(self) -> str:
        """For people: "$0.9958"; "" if not said."""
        return "" if self.balance_after is None else money.format_usd(self.balance_after)


def _key(user: Any) -> str:
    return f"django_quota.balance.{user.pk}"


def get_balance(user: Any) -> Balance:
    """The balance of `user`'s wallet, at most QUOTA_BALANCE_TTL (30) seconds old.

    Raises what `get_access_token` raises, InsufficientScope, RequestRefused. quota-protocol
    section 10.
    """
    return _kept_balance(user) or _fetch_balance(user)


aget_balance = sync_to_async(get_balance)


def _kept_balance(user: Any) -> Balance | None:
    kept = _cached(_key(user))
    credits = kept.get("credits", "") if isinstance(kept, dict) else ""
    return Balance(credits=credits) if credits is None or type(credits) is int else None


def _keep_balance(user: Any, balance: Balance) -> None:
    _cache(_key(user), {"credits": balance.credits}, get_settings().balance_ttl)


@sensitive_variables()
def _fetch_balance(user: Any, *, deadline: float | None = None) -> Balance:
    with within(deadline or get_settings().deadline):
        reply = _with_token(user, provider.balance, timeout=deadline)
    balance = Balance(credits=reply.credits)
    _keep_balance(user, balance)
    return balance


def balance_for_page(user: Any) -> tuple[str, Balance | None]:
    """A balance that never breaks a page and delays it by two seconds at most: (state, balance).

    The state is "available", "no_wallet", "unavailable", or "" for a user who is not connected.
    Raises nothing of Quota's: while it is down, one page in 15 seconds and user tries.
    """
    if not user.is_authenticated:
        return "", None
    balance = _kept_balance(user)
    if balance is None:
        if _cached(_key(user)) == _UNAVAILABLE:
            return _UNAVAILABLE, None
        try:
            balance = _fetch_balance(user, deadline=PAGE_WAIT)
        except NotConnected:
            return "", None
        except QuotaError:
            _cache(_key(user), _UNAVAILABLE, PAGE_COOL_DOWN)
            return _UNAVAILABLE, None
    return ("no_wallet" if balance.credits is None else "available"), balance


def forget_balance(user: Any) -> None:
    """Ask Quota at the next look: the wallet has changed in a way that nobody told us."""
    _forget(_key(user))


# The cache is a convenience: without it every look asks Quota, and nothing breaks. Only plain
# values go in, for not every cache can pickle.


def _cached(key: str) -> Any:
    try:
        return cache.get(key)
    except Exception as error:
        logger.warning("the cache cannot be read: %s", type(error).__name__)
        return None


def _cache(key: str, value: Any, seconds: int) -> None:
    try:
        cache.set(key, value, seconds)
    except Exception as error:
        logger.warning("the cache cannot be written: %s", type(error).__name__)


def _forget(key: str) -> None:
    try:
        cache.delete(key)
    except Exception as error:
        logger.warning("the cache cannot be written: %s", type(error).__name__)


def record_usage(user: Any, reply: Any) -> Usage | None:
    """Read what a call cost from a completion, or from the last chunk of a stream.

    `reply` is what the OpenAI SDK returned; Quota adds a `quota` object to it (quota-protocol
    section 14). The balance shown next is then right without another request. None for a chunk
    without that object.
    """
    block = (getattr(reply, "model_extra", None) or {}).get("quota")
    if not isinstance(block, dict) or type(block.get("credits_used")) is not int:
        return None
    after = block.get("balance_after")
    usage = Usage(
        credits_used=block["credits_used"], balance_after=after if type(after) is int else None
    )
    if usage.balance_after is None:
        forget_balance(user)
    else:
        _keep_balance(user, Balance(credits=usage.balance_after))
    return usage


def get_packages() -> tuple[Package, ...]:
    """The credit packages on offer, at most five minutes old; the same for everybody.

    Raises ProviderUnavailable, ConfigurationError, RequestRefused. quota-protocol section 12.
    """
    kept = _cached(_PACKAGES_KEY)
    with suppress(TypeError):  # kept by another version of this package, during a deployment
        return tuple(Package(**package) for package in kept)
    packages = provider.packages()
    _cache(_PACKAGES_KEY, [asdict(package) for package in packages], PACKAGES_TTL)
    return packages


def forget_packages() -> None:
    """Ask Quota at the next look: a package that was on offer is refused."""
    _forget(_PACKAGES_KEY)


aget_packages = sync_to_async(get_packages)


@sensitive_variables()
def create_checkout(user: Any, package_id: str, *, success_url: str, cancel_url: str) -> str:
    """Start the purchase of a package for `user`'s wallet; the URL of the payment page.

    The two URLs are absolute, and of your own site. Raises what `get_access_token` raises,
    InsufficientScope, RequestRefused. quota-protocol section 12.
    """
    return _with_token(
        user,
        lambda token: provider.create_checkout(
            token, package_id=package_id, success_url=success_url, cancel_url=cancel_url
        ),
    )


acreate_checkout = sync_to_async(create_checkout)


@sensitive_variables()
def _with_token(user: Any, ask: Callable[[str], T], *, timeout: float | None = None) -> T:
    """`ask` with the user's token; once more with a new one if Quota answers 401."""
    ends = time.monotonic() + (timeout or 0)
    token = tokens.get_access_token(user, timeout=timeout)
    try:
        return ask(token)
    except RequestRefused as error:
        if error.status != 401:
            raise
    left = None if timeout is None else max(ends - time.monotonic(), 0)
    try:
        return ask(tokens.get_access_token(user, rejected=token, timeout=left))
    except RequestRefused as error:
        if error.status != 401:
            raise
        raise ReauthenticationRequired(
            "Quota refuses even a token it has just renewed; let the user sign in again.",
            provider_code=error.provider_code,
        ) from None
