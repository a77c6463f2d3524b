"""The rows of grants. Each step of a grant is committed before the next one begins.

Quota is asked without a lock, so several processes may ask at once for the same grant. They send
the same key, under which Quota credits once. `CreditGrant.unanswered` counts the requests under
that key that may have credited the user: a process adds one before it asks, and takes it back only
if Quota has certainly credited nothing.

Quota may keep a refusal with the key, and repeat it even when its reason is gone. So a grant that
was refused is repeated under a new key, but only while no request is unanswered.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import IntegrityError
from django.db.models import F, QuerySet
from django.utils import timezone

from django_quota.exceptions import (
    IdempotencyKeyRefused,
    NotConnected,
    QuotaError,
    RefreshImpossibleHere,
)
from django_quota.models import PROVIDER, CreditGrant, ProviderAccount
from django_quota.oidc.wallet_api import FundingReply
from django_quota.tokens.locking import write_transaction

#: An older page of Quota says that a key is kept for 24 hours (quota-protocol section 13). After
#: that, the same key could credit a second time. An hour is left for the clocks of two hosts.
KEY_PERIOD = timedelta(hours=23)


@dataclass(frozen=True, kw_only=True)
class Order:
    """The arguments of `grant_credits`, which are checked, and the database of the user."""

    user: Any
    credits: int
    reason: str
    idempotency_key: str
    granted_by: str
    alias: str


def begin(order: Order) -> CreditGrant:
    """Return the row of `order`, in which one more unanswered request is noted, or which is
    confirmed already.

    Raises NotConnected, IdempotencyKeyRefused, and RefreshImpossibleHere if the user is not in the
    database yet.
    """
    row = _find(order)
    if row is None:
        try:
            return _create(order)
        except IntegrityError:
            row = _find(order)
        if row is None:
            raise not_committed()
    _require_same(row, order)
    return row if row.granted_at else _repeat(row)


def key_at_quota(row: CreditGrant) -> str:
    """Return the key to send: the caller's, with a suffix after a refusal.

    The caller's key cannot contain `~`.
    """
    return row.idempotency_key if row.attempt == 1 else f"{row.idempotency_key}~{row.attempt}"


def confirm(row: CreditGrant, reply: FundingReply) -> tuple[CreditGrant, bool]:
    """Write what Quota has answered. Returns the row, and True if this call has confirmed it."""
    rows = _same(row)
    with write_transaction(str(row._state.db)):
        is_first = rows.filter(granted_at=None).update(
            granted_at=timezone.now(),
            ledger_id=reply.ledger_id,
            balance_after=reply.balance_after,
            last_failure="",
            unanswered=0,
        )
        return rows.get(), is_first == 1


def note_failure(row: CreditGrant, error: QuotaError, *, nothing_credited: bool) -> CreditGrant:
    """Write that a request has failed. Returns the row, which another process may have confirmed.

    Do not repeat it after an error of the database: the second call could count down for another
    request, which is unanswered.
    """
    rows = _same(row)
    changes: dict[str, Any] = {"last_failure": error.provider_code or error.code}
    if nothing_credited:
        changes["unanswered"] = F("unanswered") - 1
    with write_transaction(str(row._state.db)):
        rows.filter(granted_at=None).update(**changes)
        return rows.get()


def has_account(order: Order) -> bool:
    """Return True if this connection sees a wallet of the user."""
    return _external_ids(order).exists()


def not_committed() -> RefreshImpossibleHere:
    """Return the error for a user or a wallet that only the caller's transaction sees."""
    return RefreshImpossibleHere(
        "The user or their wallet is not committed yet, and a grant is recorded on a second "
        "connection, so that no rollback removes it. Call grant_credits after the commit: "
        "transaction.on_commit."
    )


def _external_ids(order: Order) -> "QuerySet[ProviderAccount, str]":
    accounts = ProviderAccount.objects.using(order.alias)
    mine = accounts.filter(user_id=order.user.pk, provider=PROVIDER)
    return mine.values_list("external_id", flat=True)


def _find(order: Order) -> CreditGrant | None:
    rows = CreditGrant.objects.using(order.alias)
    return rows.filter(idempotency_key=order.idempotency_key).first()


def _same(row: CreditGrant) -> "QuerySet[CreditGrant]":
    return CreditGrant.objects.using(row._state.db).filter(pk=row.pk)


def _create(order: Order) -> CreditGrant:
    external_id = _external_ids(order).first()
    if external_id is None:
        raise NotConnected("This user has no Quota wallet here; let them sign in with Quota.")
    with write_transaction(order.alias):
        return CreditGrant.objects.using(order.alias).create(
            user_id=order.user.pk,
            external_id=external_id,
            idempotency_key=order.idempotency_key,
            credits=order.credits,
            reason=order.reason,
            granted_by=order.granted_by,
            unanswered=1,
        )


def _require_same(row: CreditGrant, order: Order) -> None:
    if (row.user_id, row.credits) != (order.user.pk, order.credits):
        raise IdempotencyKeyRefused(
            f"The idempotency_key {order.idempotency_key} belongs to a grant of {row.credits} "
            "credits, or to another user. Use one key for each grant.",
            status=409,
        )


def _repeat(row: CreditGrant) -> CreditGrant:
    """Note one more request, under a new key if nothing can have been credited under the last."""
    if row.unanswered and timezone.now() - row.asked_at > KEY_PERIOD:
        raise IdempotencyKeyRefused(
            f"Quota was asked for the grant {row.idempotency_key} on {row.asked_at:%Y-%m-%d}, and "
            "it is unknown whether it credited the user. It may have forgotten the key, so asking "
            "again could credit twice. Look into the user's ledger at Quota; if the credits are "
            "missing, grant them with another key.",
            status=409,
        )
    rows = _same(row)
    with write_transaction(str(row._state.db)):
        waiting = rows.filter(granted_at=None)
        waiting.filter(unanswered=0).update(attempt=F("attempt") + 1, asked_at=timezone.now())
        waiting.update(unanswered=F("unanswered") + 1)
        return rows.get()
