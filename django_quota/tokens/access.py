"""Get an access token that is valid now, renewed first if necessary.

All code gets its tokens here. This module starts renewals in a thread and waits for them; `renewal`
does the work.
"""

from collections.abc import Callable, Hashable
from concurrent.futures import Future
from datetime import datetime
from functools import partial
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connections
from django.http import HttpRequest

from django_quota.exceptions import (
    ConfigurationError,
    NotConnected,
    ProviderUnavailable,
    QuotaError,
    RefreshImpossibleHere,
)
from django_quota.models import ProviderAccount, QuotaToken
from django_quota.oidc.time_limit import seconds_left

from . import first_look, leases, locking
from .decisions import fresh_token, require_connected, valid_token
from .lookup import token_row, token_row_again, token_row_of_account
from .payer import aget_payer, current_request, get_payer, nobody_acts, require_payer
from .places import Elsewhere, Place, at_place_of_caller, here
from .renewal import Renewal
from .single_flight import OwnThread, in_transaction, renewals

P = ParamSpec("P")
T = TypeVar("T")


def get_access_token(user: Any, *, rejected: str | None = None) -> str:
    """Return an access token of `user`'s wallet that is valid now, renewed first if necessary.

    It makes one query and no HTTP request if the token lasts longer than QUOTA_REFRESH_LEEWAY (30
    seconds), and not even the query for the first call of a view after `@quota_required`.
    `rejected` is a token that Quota has just refused with a 401: it is renewed even if it has not
    expired, unless it was renewed already.

    Raises NotConnected, ReauthenticationRequired, ProviderUnavailable, ConfigurationError,
    TokenUnreadable, RefreshImpossibleHere, and ImpersonationRefused in a request in which another
    person acts as the user. Source: the recipe, "Refresh on expiry".
    """
    require_payer(user)
    return access_token_also_while_acting(user, rejected=rejected)


def access_token_also_while_acting(user: Any, *, rejected: str | None = None) -> str:
    """`get_access_token` without the check for impersonation.

    For requests that cost nothing, such as the balance, and for those that were checked before.
    """
    found = _in_sync_code(_found, user, rejected)
    return found if isinstance(found, str) else found.result()


async def aget_access_token(user: Any, *, rejected: str | None = None) -> str:
    """`get_access_token` for async code.

    It does not block the event loop, and a renewal goes on if the task is cancelled.
    """
    token = _known_on_loop(user) if rejected is None else None
    if token is not None:
        return token
    # Build the query in a thread: with 500 tasks, `afirst` would build 500 queries on the loop.
    found = await _look(user, rejected)
    return found if isinstance(found, str) else await found.aresult()


def check_wallet(user: Any) -> None:
    """Check before a view that `get_access_token` returns a token; renew an expired one.

    The first call of the view uses the token that it has read. Raises what `get_access_token`
    raises.
    """
    require_payer(user)
    found = _in_sync_code(_checked, user)
    if found is not None:
        found.result()


async def acheck_wallet(request: HttpRequest) -> Any:
    """`check_wallet` for async code: find the payer of `request`, check their wallet, and return
    the payer. It does both in one thread. Raises what `get_payer` raises, too.
    """
    if not first_look.is_usable():
        # A router may need the user itself to find the database.
        payer = await aget_payer(request)
        await aget_access_token(payer)
        return payer
    payer, found = await _check_in_thread(request.user, request)
    if found is not None:
        await found.aresult()
    return payer


def renew(account: ProviderAccount) -> bool:
    """Renew the tokens of `account` now, even if they have not expired. For the admin.

    Returns False and changes nothing if the access token is valid and there is no refresh token.
    Raises what `get_access_token` raises.
    """
    row = token_row_of_account(account)
    if row is None:
        raise NotConnected("This account has no tokens; let the user sign in with Quota.")
    if not row.refresh_token and row.expires_at > row.clock.now():
        return False
    _Wanted(row, row.access_token.reveal()).result()
    return True


def renew_unless_taken(
    seen: QuotaToken, *, since: datetime, patience: float, thread: OwnThread | None = None
) -> bool:
    """Renew the row `seen`, unless another worker has it. For bulk work, which does not wait.

    Returns False if another worker holds the row, has written it, or has failed to renew it after
    `since`, and if the access token is valid and there is no refresh token. `patience` is how many
    seconds to wait for a database that is away, before the token is spent. It runs in `thread`, if
    there is one.

    Do not call it in a transaction. Raises what `get_access_token` raises.
    """
    alias = locking.database(seen)
    work = partial(Renewal(seen, None, since=since).run_unless_taken, patience)
    place = locking.under_lock(lambda: here(alias), alias, patience)
    try:
        return renewals.result(_begin(place, object(), work, thread=thread))
    except Elsewhere:
        return work()


def _in_sync_code(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `work`, which uses the database. Raises ConfigurationError on an event loop."""
    try:
        return work(*args, **kwargs)
    except SynchronousOnlyOperation:
        raise ConfigurationError(
            "get_access_token uses the database; in async code, await aget_access_token, or use "
            "async_openai_client. A synchronous view runs such code by asgiref.sync.async_to_sync."
        ) from None


def _found(user: Any, rejected: str | None) -> "str | _Wanted":
    """Return the token, or the renewal that it needs first."""
    if rejected is None and (kept := first_look.take(user)) is not None:
        return kept
    row = require_connected(token_row(user))
    token = fresh_token(row, rejected, row.clock.now())
    return _Wanted(row, rejected) if token is None else token


def _known_on_loop(user: Any) -> str | None:
    """Return the token that was read for the check before the view, if it is still fresh.

    It uses neither the database nor a thread: None where that is needed.
    """
    request = current_request()
    return first_look.take(user) if request is not None and nobody_acts(request) else None


def _checked(user: Any) -> "_Wanted | None":
    """Return the renewal that `user`'s token needs before the view; None if it needs none."""
    row = require_connected(token_row(user))
    token = fresh_token(row, None, row.clock.now())
    if token is None:
        return _Wanted(row, None)
    first_look.keep(user, row, token)
    return None


def _found_or_begun(user: Any, rejected: str | None) -> "str | _Wanted":
    """`_found` for async code, which starts the renewal in the thread that uses the database."""
    require_payer(user)
    found = _found(user, rejected)
    return found if isinstance(found, str) else found.begun()


def _checked_or_begun(_user: Any, request: HttpRequest) -> "tuple[Any, _Wanted | None]":
    """The payer of `request`, and the renewal that was begun for them, if one is needed."""
    payer = get_payer(request)
    wanted = _checked(payer)
    begun = wanted and wanted.begun()
    return payer, begun if isinstance(begun, _Wanted) else None


_look = at_place_of_caller(_found_or_begun)
_check_in_thread = at_place_of_caller(_checked_or_begun)


def _begin(
    place: Place,
    key: Hashable,
    work: Callable[[], T],
    *,
    join: bool = True,
    thread: OwnThread | None = None,
) -> "Future[T]":
    """Start `work` in `renewals`, on its own connection, in the database and schema of `place`."""
    return renewals.start(key, partial(_at_place, place, work), join=join, thread=thread)


def _at_place(place: Place, work: Callable[[], T]) -> T:
    if not renewals.inline:
        locking.under_lock(place.enter, place.alias)
    return work()


class _Wanted:
    """A renewal that a caller waits for.

    It runs once for all callers of this process, in a thread whose connection uses the database and
    the schema of the caller.
    """

    def __init__(self, row: QuotaToken, rejected: str | None) -> None:
        self._row, self._rejected = row, rejected
        self._alias = locking.database(row)
        self._in_transaction = in_transaction(self._alias)
        self._renewal = Renewal(row, rejected, since=row.clock.now())
        self._future: Future[str] | None = None

    def result(self) -> str:
        """Return the token to use, in sync code. The wait ends with the caller's time limit."""
        try:
            try:
                return renewals.result(self._begin(), seconds_left())
            except Elsewhere:
                if self._in_transaction or seconds_left() is not None:
                    raise
                # Only the caller's own connection is set to the schema, so renew on it.
                return self._renewal.run()
        except QuotaError as error:
            return self._go_on(error)

    def begun(self) -> "str | _Wanted":
        """Start the renewal and return self; or return the old token if it cannot start."""
        try:
            self._future = self._begin()
        except QuotaError as error:
            return self._go_on(error)
        return self

    async def aresult(self) -> str:
        """Return the token to use, in async code, after `begun`."""
        assert self._future is not None
        try:
            return await renewals.aresult(self._future, leases.longest())
        except QuotaError as error:
            return await sync_to_async(self._go_on)(error)  # it may use the database

    def _begin(self) -> "Future[str]":
        if self._in_transaction and connections[self._alias].vendor == "sqlite":
            raise RefreshImpossibleHere(
                "The access token has expired, and SQLite cannot save a new one while this "
                "transaction is open. Call get_access_token before the transaction begins."
            )
        # The place is part of the key: two tenants may use the same primary key.
        place = here(self._alias)
        key = (place, self._row.pk, self._row.identity, self._rejected)
        # While the old token is valid, only the first caller waits; the others use the old token.
        return _begin(place, key, self._renewal.run, join=self._valid() is None)

    def _valid(self) -> str | None:
        return valid_token(self._row, self._rejected, self._row.clock.now())

    def _go_on(self, error: QuotaError) -> str:
        """Return the old token if it is valid and the renewal failed for now; else raise `error`.

        A caller in a transaction gets an error that explains what to do about the transaction.
        """
        if isinstance(error, (ProviderUnavailable, RefreshImpossibleHere)):
            valid = self._valid()
            if valid is not None:
                return valid
        if self._in_transaction and isinstance(error, locking.RowLocked):
            raise RefreshImpossibleHere(
                "The token row is locked, perhaps by this transaction, or the database allows no "
                "second connection. Renew the token before the transaction begins."
            ) from None
        is_gone = isinstance(error, NotConnected)
        if self._in_transaction and is_gone and token_row_again(self._row) is not None:
            raise RefreshImpossibleHere(
                "The token row is not committed yet, so no other connection can renew it. "
                "Commit first; in tests see django_quota.testing."
            ) from None
        raise error
