"""Giving tokens back: what is dropped here is revoked at Quota (RFC 7009), if need be later.

The token goes into the queue in the transaction that drops it, so that it survives the row, the
user and an outage of Quota's.
"""

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import router
from django.db.models import F, QuerySet
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from . import provider
from .exceptions import QuotaError, TokenUnreadable
from .models import PendingRevocation, QuotaToken, WebhookEvent

__all__ = [
    "EVENT_PERIOD",
    "Pruned",
    "prune",
    "queue",
    "queue_deleted",
    "queue_unless_kept",
    "readable",
    "revoke_pending",
]

logger = logging.getLogger("django_quota.revocation")

#: Rows of the queue in memory at once, without their tokens.
BATCH = 1000
#: How long a handled webhook event is kept: longer than one is accepted (`webhooks.MAX_AGE`), or a
#: replay would find nothing that says it was handled.
EVENT_PERIOD = timedelta(days=30)


@sensitive_variables()
def readable(row: QuotaToken, name: str) -> str:
    """A secret of `row`, or "" where its key is lost: then there is nothing to revoke it with."""
    try:
        return str(getattr(row, name))
    except TokenUnreadable:
        logger.warning("token %s: %s cannot be decrypted, so it is not revoked", row.pk, name)
        return ""


@sensitive_variables()
def queue(refresh_token: str) -> None:
    """To be called in the transaction that drops `refresh_token`: both happen, or neither."""
    if refresh_token:
        PendingRevocation.objects.create(token=refresh_token)


@sensitive_variables()
def queue_unless_kept(refresh_token: str | None, row: QuotaToken | None) -> None:
    """`queue`, unless `row` goes on using that very token: a provider need not rotate it."""
    if refresh_token and (row is None or readable(row, "refresh_token") != refresh_token):
        queue(refresh_token)


def queue_deleted(*, instance: QuotaToken, **kwargs: Any) -> None:
    """Receiver of `pre_delete`: disconnecting, and deleting a user, revoke at Quota too.

    The row is locked first: a renewal that ends at this moment has another token to be revoked.
    """
    row = QuotaToken.objects.select_for_update().filter(pk=instance.pk).first()
    if row is not None:
        queue(readable(row, "refresh_token"))


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What `prune` did, in tokens. `stopped` says why it ended early, "" if it did not."""

    revoked: int
    #: Wiped at their end date, without Quota having been told.
    wiped: int
    left: int
    stopped: str
    #: Handled webhook events that were deleted.
    events: int = 0


def prune() -> Pruned:
    """Revoke what waits for it, then wipe what has waited for `REVOCATION_PERIOD` (30 days), and
    delete handled webhook events that came `EVENT_PERIOD` (30 days) ago.

    For cron, Celery and the like, every few minutes. Raises nothing of Quota's: the first failure
    ends the run, and what is left is tried again by the next, those tried least first.
    """
    total, seen, failure = 0, 0, None
    waiting = _waiting().count()
    while seen < waiting and failure is None:
        revoked, failure = _work_off(BATCH)
        total += revoked
        seen += BATCH
    # Without the token: where a receiver of signals makes Django load the rows, one that cannot be
    # decrypted must go, too.
    due = _waiting().filter(expires_at__lte=timezone.now())
    wiped, _of_each_model = due.delete()
    return Pruned(
        revoked=total,
        wiped=wiped,
        left=_waiting().count(),
        stopped=str(failure or ""),
        events=_forget_events(),
    )


def _forget_events() -> int:
    """Delete the handled webhook events that came EVENT_PERIOD ago; how many."""
    events = WebhookEvent.objects.using(router.db_for_write(WebhookEvent))
    due = events.filter(received_at__lte=timezone.now() - EVENT_PERIOD)
    handled = due.exclude(handled_at=None).order_by("pk")
    total = 0
    while batch := list(handled.values_list("pk", flat=True)[:BATCH]):
        total += events.filter(pk__in=batch).delete()[0]
    return total


def _waiting() -> "QuerySet[PendingRevocation]":
    """The queue, without its secrets; never a replica's, which may not know yet what is done."""
    alias = router.db_for_write(PendingRevocation)
    return PendingRevocation.objects.using(alias).defer("token")


def revoke_pending(limit: int = BATCH) -> int:
    """Work off up to `limit` of the queue, those tried least first; how many were revoked.

    Raises nothing of Quota's: what fails stays in the queue, and the first failure ends the run.
    """
    return _work_off(limit)[0]


@sensitive_variables()
def _work_off(limit: int) -> tuple[int, QuotaError | None]:
    """Revoke (RFC 7009): how many, and the failure of Quota's that ended it."""
    revoked = 0
    for pending in _waiting().order_by("attempts", "pk")[:limit]:
        try:
            # Not by way of `pending`, for which Django would ask a replica.
            token = _waiting().defer(None).get(pk=pending.pk).token
            provider.revoke(token, pending.token_type_hint)
        except PendingRevocation.DoesNotExist:
            continue  # another process has just done with it
        except QuotaError as error:
            logger.warning("revocation %s put off: %s", pending.pk, error)
            # Not save(): another process may have done with it meanwhile.
            _waiting().filter(pk=pending.pk).update(attempts=F("attempts") + 1)
            if isinstance(error, TokenUnreadable):
                continue
            return revoked, error
        pending.delete()
        revoked += 1
    return revoked, None
