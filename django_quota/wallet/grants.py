"""Credits that the developer gives to a user: a free trial, a refund. Each grant happens once."""

import logging
import re
import uuid
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from django.core.exceptions import SynchronousOnlyOperation
from django.db import Error, connections
from django.views.decorators.debug import sensitive_variables

from django_quota.conf import get_settings
from django_quota.exceptions import (
    ConfigurationError,
    GrantUnconfirmed,
    IdempotencyKeyRefused,
    NotConnected,
    ProviderUnavailable,
    QuotaError,
    RateLimited,
    RefreshImpossibleHere,
)
from django_quota.models import CreditGrant
from django_quota.oidc import wallet_api
from django_quota.signals import credits_granted
from django_quota.tokens import durable, locking
from django_quota.tokens.places import at_place_of_caller, database_of, here
from django_quota.tokens.single_flight import in_transaction

from . import grant_records
from .balances import forget_balance
from .grant_records import Order

logger = logging.getLogger("django_quota.grants")

#: Seconds for which the confirmation of a grant is repeated while the database is away.
SAVE_PATIENCE = 10.0
MAX_REASON_LENGTH = 200
#: Printable in a header. `grant_records.key_at_quota` relies on `~` not being one of them.
_KEY = re.compile(r"[A-Za-z0-9._:/@+=-]{1,100}")


@dataclass(frozen=True, kw_only=True)
class Grant:
    """A grant that Quota has confirmed.

    `credits` (int) were added to the wallet, and `balance_after` (int, None if Quota did not say)
    is its balance in credits right after that. `ledger_id` names the entry in Quota's ledger.
    """

    idempotency_key: str
    credits: int
    reason: str
    balance_after: int | None
    ledger_id: str
    granted_at: datetime


def grant_credits(
    user: Any,
    credits: int,
    *,
    reason: str = "",
    idempotency_key: str | None = None,
    granted_by: str = "",
) -> Grant:
    """Give `credits` credits to `user`, from the wallet that QUOTA_API_KEY belongs to.

    They are given once for each `idempotency_key` (1 to 100 letters, digits and `._:/@+=-`), across
    processes and retries, such as `f"trial-{user.pk}"`: the same call again returns the same Grant.
    Without a key, one is generated. `reason` (at most 200 characters) is shown in Quota's ledger.
    `granted_by` names a member of staff, for the record here.

    Sends `credits_granted`, and logs the errors of its receivers. quota-protocol section 13.

    Raises TypeError and ValueError for a malformed argument; NotConnected if the user has no
    wallet; ConfigurationError if QUOTA_API_KEY is missing or refused, or your wallet is empty;
    IdempotencyKeyRefused if the key belongs to another grant; RequestRefused if Quota does not know
    the user; GrantUnconfirmed if Quota's answer is lost: call again with the key of the error;
    RefreshImpossibleHere inside a transaction on SQLite, or if the transaction has created or
    locked the user; and ProviderUnavailable if nothing was sent.
    """
    _require_credits(credits)
    _require_text(reason)
    key = uuid.uuid4().hex if idempotency_key is None else _require_key(idempotency_key)
    try:
        alias = database_of(user)
        if user.pk is None:
            raise NotConnected("Nobody is signed in, or the user is not saved: there is no wallet.")
        order = Order(
            user=user,
            credits=credits,
            reason=reason,
            idempotency_key=key,
            granted_by=granted_by[:255],
            alias=alias,
        )
        row, is_first = _out_of_reach_of_rollback(order, get_settings().funding_key)
    except SynchronousOnlyOperation:
        raise ConfigurationError(
            "grant_credits uses the database; in async code, await agrant_credits(user, ...)."
        ) from None
    grant = _grant_of(row)
    _forget_balance(user)
    if is_first:
        credits_granted.send_robust(sender=CreditGrant, user=user, grant=grant)
    return grant


#: `grant_credits` for async code.
agrant_credits = at_place_of_caller(grant_credits)


def _require_credits(credits: Any) -> None:
    if type(credits) is not int:
        raise TypeError(
            f"credits must be an int, not {type(credits).__name__}; 1,000,000 credits are $1.00."
        )
    if not 0 < credits < 1 << 63:
        raise ValueError("credits must be from 1 to 2**63 - 1; 1,000,000 credits are $1.00.")


def _require_text(reason: Any) -> None:
    if not isinstance(reason, str):
        raise TypeError(f"reason must be a str, not {type(reason).__name__}.")
    if len(reason) > MAX_REASON_LENGTH or not reason.isprintable():
        raise ValueError(
            f"reason must be one line of at most {MAX_REASON_LENGTH} printable characters."
        )


def _require_key(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"idempotency_key must be a str, not {type(key).__name__}.")
    if not _KEY.fullmatch(key):
        raise ValueError("idempotency_key must be 1 to 100 ASCII letters, digits and ._:/@+=-")
    return key


@sensitive_variables("api_key")
def _out_of_reach_of_rollback(order: Order, api_key: str) -> tuple[CreditGrant, bool]:
    """Carry `order` out on a connection whose commits the caller's transaction does not undo."""
    if not in_transaction(order.alias):
        return _carry_out(order, api_key)
    if connections[order.alias].vendor == "sqlite":
        raise RefreshImpossibleHere(
            "SQLite cannot record a grant while this transaction is open. Call grant_credits after "
            "the commit (transaction.on_commit), or mark the view with "
            "transaction.non_atomic_requests."
        )
    place = here(order.alias)

    def work() -> tuple[CreditGrant, bool]:
        place.enter()
        return _carry_out(order, api_key)

    try:
        return durable.run_in_thread(work)
    except NotConnected:
        if grant_records.has_account(order):
            raise grant_records.not_committed() from None
        raise


@sensitive_variables("api_key")
def _carry_out(order: Order, api_key: str) -> tuple[CreditGrant, bool]:
    """Return the confirmed row, and True if this call has confirmed it."""
    row = _begin(order)
    if row.granted_at:
        return row, False
    try:
        reply = wallet_api.fund_user(
            api_key,
            user_id=row.external_id,
            amount=row.credits,
            description=row.reason,
            idempotency_key=grant_records.key_at_quota(row),
        )
    except QuotaError as error:
        return _confirmed_by_others(row, error), False
    return _confirm(row, reply)


def _begin(order: Order) -> CreditGrant:
    begin = partial(grant_records.begin, order)
    try:
        return locking.retry(begin, locking.LOCK_WAIT, alias=order.alias)
    except locking.REFUSALS as error:
        raise ProviderUnavailable(
            f"The grant cannot be recorded ({type(error).__name__}), so Quota was not asked. The "
            "database is away, or this transaction has locked the user; try again after it.",
            request_sent=False,
        ) from None


def _confirmed_by_others(row: CreditGrant, error: QuotaError) -> CreditGrant:
    """Note the failure. Returns the row if another process has confirmed it, else raises."""
    nothing_credited = _nothing_credited(error)
    try:
        now = grant_records.note_failure(row, error, nothing_credited=nothing_credited)
        if now.granted_at:
            return now
    except Error as failure:
        logger.warning("the failure of a grant is not noted: %s", type(failure).__name__)
    if nothing_credited or isinstance(error, IdempotencyKeyRefused):
        raise error
    raise _unconfirmed(row, str(error), getattr(error, "status", None)) from None


def _nothing_credited(error: QuotaError) -> bool:
    """Return True if the failed request has certainly credited nothing."""
    if isinstance(error, ProviderUnavailable):
        return isinstance(error, RateLimited) or not error.request_sent
    return not isinstance(error, IdempotencyKeyRefused)


def _confirm(row: CreditGrant, reply: wallet_api.FundingReply) -> tuple[CreditGrant, bool]:
    confirm = partial(grant_records.confirm, row, reply)
    try:
        return locking.retry(confirm, SAVE_PATIENCE, alias=str(row._state.db), any_error=True)
    except Error as error:
        problem = f"Quota has credited the user, but that is not saved: {type(error).__name__}."
        raise _unconfirmed(row, problem) from None


def _unconfirmed(row: CreditGrant, problem: str, status: int | None = None) -> GrantUnconfirmed:
    key = row.idempotency_key
    return GrantUnconfirmed(
        f"It is unknown whether the user has got the credits. Call grant_credits again with "
        f"idempotency_key={key!r}, which credits once. ({problem})",
        idempotency_key=key,
        status=status,
    )


def _grant_of(row: CreditGrant) -> Grant:
    assert row.granted_at is not None
    return Grant(
        idempotency_key=row.idempotency_key,
        credits=row.credits,
        reason=row.reason,
        balance_after=row.balance_after,
        ledger_id=row.ledger_id,
        granted_at=row.granted_at,
    )


def _forget_balance(user: Any) -> None:
    """Have the next page ask Quota. The grant has happened, whatever the database says now."""
    try:
        forget_balance(user)
    except (Error, QuotaError) as error:
        logger.warning("the cached balance may be old: %s", type(error).__name__)
