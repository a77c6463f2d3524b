"""A user's wallet: what is in it, and how to put more in."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from hashlib import sha256
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.views.decorators.debug import sensitive_variables

from . import caching, provider, tokens
from .balances import Balance, forget_balance, keep_balance, kept_balance
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
    "acreate_checkout",
    "aget_balance",
    "aget_packages",
    "balance_for_page",
    "create_checkout",
    "forget_balance",
    "forget_packages",
    "get_balance",
    "get_packages",
    "keep_balance",
]

T = TypeVar("T")

#: The most that a page waits for a balance, in seconds, and for how long it then does without.
PAGE_WAIT = 2
PAGE_COOL_DOWN = 15
#: Seconds after an outage in which one page at a time finds out whether it is over.
OUTAGE_MEMORY = 300
PACKAGES_TTL = 300
#: Seconds in which another click for the same purchase is a double click.
CLICK_SECONDS = 5
_UNAVAILABLE = "unavailable"
_DOWN = "django_quota.down"
_TRIED = "django_quota.tried"
_PACKAGES_KEY = "django_quota.packages"


def get_balance(user: Any) -> Balance:
    """The balance of `user`'s wallet, at most QUOTA_BALANCE_TTL (30) seconds old.

    Raises what `get_access_token` raises, InsufficientScope, RequestRefused. quota-protocol
    section 10.
    """
    return kept_balance(user) or _fetch_balance(user)


#: `get_balance` for async code.
aget_balance = sync_to_async(get_balance)


@sensitive_variables()
def _fetch_balance(user: Any, *, deadline: float | None = None) -> Balance:
    asked_at = time.time()
    with within(deadline or get_settings().deadline):
        reply = _with_token(user, provider.balance, timeout=deadline)
    balance = Balance(credits=reply.credits)
    keep_balance(user, balance, as_of=asked_at)
    return balance


def balance_for_page(user: Any) -> tuple[str, Balance | None]:
    """A balance that never breaks a page and delays it by two seconds at most: (state, balance).

    The state is the balance's own ("available", "low", "no_wallet"), or "unavailable", or "" for a
    user who is not connected. Raises nothing of Quota's. After a failure, a page of that user tries
    again 15 seconds later; while Quota makes pages wait, one page in 15 seconds does, of all pages
    for all users.
    """
    if not user.is_authenticated:
        return "", None
    balance = kept_balance(user)
    trouble = f"django_quota.trouble.{user.pk}"
    if balance is None:
        was_down = caching.get(_DOWN)
        if caching.get(trouble) or (was_down and not caching.claim(_TRIED, PAGE_COOL_DOWN)):
            return _UNAVAILABLE, None
        began = time.monotonic()
        try:
            balance = _fetch_balance(user, deadline=PAGE_WAIT)
        except NotConnected:
            return "", None
        except QuotaError:
            # What makes this page wait would make them all wait. What fails at once may be this
            # user's own: a limit of the rate, a token.
            if time.monotonic() - began > PAGE_WAIT / 2:
                caching.keep(_DOWN, True, OUTAGE_MEMORY)
                caching.keep(_TRIED, True, PAGE_COOL_DOWN)
            else:
                caching.keep(trouble, True, PAGE_COOL_DOWN)
            return _UNAVAILABLE, None
        if was_down:
            caching.forget(_DOWN)
    return balance.state, balance


def get_packages() -> tuple[Package, ...]:
    """The credit packages on offer, at most five minutes old; the same for everybody.

    Raises ProviderUnavailable, ConfigurationError, RequestRefused. quota-protocol section 12.
    """
    kept = caching.get(_PACKAGES_KEY)
    with suppress(TypeError):  # kept by another version of this package, during a deployment
        return tuple(Package(**package) for package in kept)
    packages = provider.packages()
    caching.keep(_PACKAGES_KEY, [asdict(package) for package in packages], PACKAGES_TTL)
    return packages


def forget_packages() -> None:
    """Ask Quota at the next look: a package that was on offer is refused."""
    caching.forget(_PACKAGES_KEY)


#: `get_packages` for async code.
aget_packages = sync_to_async(get_packages)


@sensitive_variables()
def create_checkout(user: Any, package_id: str, *, success_url: str, cancel_url: str) -> str:
    """Start the purchase of a package for `user`'s wallet; the URL of the payment page.

    The two URLs are absolute, and of your own site. A double click makes one purchase: for
    CLICK_SECONDS the same package has the same answer. Raises what `get_access_token` raises,
    InsufficientScope, RequestRefused. quota-protocol section 12.
    """

    @sensitive_variables()
    def start() -> str:
        return _with_token(
            user,
            lambda token: provider.create_checkout(
                token, package_id=package_id, success_url=success_url, cancel_url=cancel_url
            ),
        )

    key = _checkout_key(user, package_id)
    return caching.once(key, start, seconds=CLICK_SECONDS, patience=get_settings().deadline)


def forget_checkout(user: Any, package_id: str) -> None:
    """The purchase of that package is over, paid or cancelled: the next click begins another."""
    caching.forget(_checkout_key(user, package_id))


def _checkout_key(user: Any, package_id: str) -> str:
    what = sha256(repr((user.pk, package_id)).encode()).hexdigest()
    return f"django_quota.checkout.{what}"


#: `create_checkout` for async code.
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
