"""The balance of a user's wallet, and the purchase of credits."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from hashlib import sha256
from typing import Any, TypeVar

from asgiref.sync import sync_to_async

from django_quota.conf import get_settings
from django_quota.exceptions import (
    NotConnected,
    QuotaError,
    ReauthenticationRequired,
    RequestRefused,
)
from django_quota.oidc import wallet_api
from django_quota.oidc.time_limit import within
from django_quota.oidc.wallet_api import Package
from django_quota.tokens import access
from django_quota.tokens.lookup import token_row
from django_quota.tokens.places import at_place_of_caller
from django_quota.tokens.wallet_name import wallet_of

from . import caching
from .balances import (
    NOT_CONNECTED,
    UNAVAILABLE,
    Balance,
    PageBalance,
    begin_request,
    keep_balance,
    kept_balance,
)

T = TypeVar("T")

#: Seconds that a page waits for a balance at most.
PAGE_WAIT = 2
#: Seconds after a failure during which pages of that user do not ask Quota.
PAGE_COOL_DOWN = 15
#: If the balances of this many users in a row were slow, Quota is taken to be down.
OUTAGE_USERS = 3
#: Seconds for which an outage is remembered. Meanwhile one page at a time asks Quota.
OUTAGE_MEMORY = 300
#: Seconds for which the packages are cached.
PACKAGES_TTL = 300
#: Cache key of a list: the wallets whose balance was slow since the last fast one.
_SLOW = "django_quota.slow"
#: Cache key that is set while a page has asked Quota during an outage.
_TRIED = "django_quota.tried"


def get_balance(user: Any) -> Balance:
    """Return the balance of `user`'s wallet, at most QUOTA_BALANCE_TTL (30) seconds old.

    Raises InsufficientScope, RequestRefused, and what `get_access_token` raises except
    ImpersonationRefused, because it spends nothing. quota-protocol section 10.
    """
    return kept_balance(user) or _fetch_balance(user)


#: `get_balance` for async code.
aget_balance = at_place_of_caller(get_balance)


def _fetch_balance(user: Any) -> Balance:
    version, asked_at = begin_request(user), time.monotonic()
    reply = _with_token(user, wallet_api.fetch_balance, access.access_token_also_while_acting)
    balance = Balance(credits=reply.credits)
    keep_balance(version, balance, age=time.monotonic() - asked_at)
    return balance


def balance_for_page(user: Any) -> PageBalance:
    """Return what a page shows of `user`'s wallet, within two seconds. Raises no QuotaError.

    After a failure, pages of that user ask Quota again after 15 seconds. While Quota is slow for
    several users, one page in 15 seconds asks it, of all pages for all users.
    """
    if not user.is_authenticated:
        return NOT_CONNECTED
    try:
        balance = kept_balance(user)
    except QuotaError:
        return UNAVAILABLE
    if balance is not None:
        return PageBalance(state=balance.state, balance=balance)
    return _ask_for_page(user)


def _ask_for_page(user: Any) -> PageBalance:
    wallet = wallet_of(user)
    trouble, slow = f"django_quota.trouble.{wallet}", _slow_wallets()
    is_down = len(slow) >= OUTAGE_USERS
    if is_down and token_row(user) is None:
        return NOT_CONNECTED  # before the claim, as this page would not ask Quota
    if caching.get(trouble) or (is_down and not caching.claim(_TRIED, PAGE_COOL_DOWN)):
        return UNAVAILABLE
    began = time.monotonic()
    try:
        with within(PAGE_WAIT):
            balance = _fetch_balance(user)
    except NotConnected:
        return NOT_CONNECTED
    except QuotaError:
        caching.keep(trouble, True, PAGE_COOL_DOWN)
        # A failure without a wait concerns this user only, such as a rate limit or a bad token. A
        # slow failure may concern everybody; the pages of other users will show that.
        if time.monotonic() - began > PAGE_WAIT / 2:
            _note_slow(wallet)
        elif is_down:
            caching.forget(_TRIED)  # so the next page asks, and finds out whether it is over
        return UNAVAILABLE
    if slow:
        caching.forget(_SLOW)
    return PageBalance(state=balance.state, balance=balance)


def _slow_wallets() -> list[str]:
    slow = caching.get(_SLOW)
    return slow if isinstance(slow, list) else []


def _note_slow(wallet: str) -> None:
    # Of two pages at once, one may overwrite the other's note: the next slow page is noted, too.
    others = [other for other in _slow_wallets() if other != wallet]
    slow = [*others, wallet][-OUTAGE_USERS:]
    caching.keep(_SLOW, slow, OUTAGE_MEMORY)
    if len(slow) == OUTAGE_USERS:
        caching.claim(_TRIED, PAGE_COOL_DOWN)


def get_packages() -> tuple[Package, ...]:
    """Return the credit packages on offer, at most five minutes old. All users get the same.

    Raises ProviderUnavailable, ConfigurationError, RequestRefused. quota-protocol section 12.
    """
    kept = caching.get(_packages_key())
    with suppress(TypeError):  # cached by another version of this package, during a deployment
        return tuple(Package(**package) for package in kept)
    packages = wallet_api.fetch_packages()
    caching.keep(_packages_key(), [asdict(package) for package in packages], PACKAGES_TTL)
    return packages


def forget_packages() -> None:
    """Drop the cached packages: Quota has refused one that was on offer."""
    caching.forget(_packages_key())


def _packages_key() -> str:
    """Return a key per provider: of two sites that share a cache, one may use a sandbox."""
    return f"django_quota.packages.{sha256(get_settings().base_url.encode()).hexdigest()}"


#: `get_packages` for async code.
aget_packages = sync_to_async(get_packages)


def create_checkout(user: Any, package_id: str, *, success_url: str, cancel_url: str) -> str:
    """Start the purchase of a package for `user`'s wallet. Returns the URL of the payment page.

    `success_url` and `cancel_url` are absolute URLs of your own site. Each call starts a purchase,
    of which nothing is charged before the person pays on its page. Raises InsufficientScope,
    RequestRefused, and what `get_access_token` raises. quota-protocol section 12.
    """
    return _with_token(
        user,
        lambda token: wallet_api.create_checkout(
            token, package_id=package_id, success_url=success_url, cancel_url=cancel_url
        ),
        access.get_access_token,
    )


#: `create_checkout` for async code.
acreate_checkout = at_place_of_caller(create_checkout)


def _with_token(user: Any, ask: Callable[[str], T], get_token: Callable[..., str]) -> T:
    """Call `ask` with the user's token. If Quota answers 401, renew the token and call it again."""
    token = get_token(user)
    try:
        return ask(token)
    except RequestRefused as error:
        if error.status != 401:
            raise
    try:
        return ask(get_token(user, rejected=token))
    except RequestRefused as error:
        if error.status != 401:
            raise
        raise ReauthenticationRequired(
            "Quota refuses a token that it has just renewed; let the user sign in again.",
            provider_code=error.provider_code,
        ) from None
