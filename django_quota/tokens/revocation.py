"""The revocation queue: tokens that are dropped here are revoked at Quota (RFC 7009).

A token enters the queue in the transaction that drops it, so it survives the row, the user and an
outage of Quota.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import router
from django.db.models import F
from django.utils import timezone

from django_quota.exceptions import (
    ConfigurationError,
    ProviderUnavailable,
    QuotaError,
    RateLimited,
    TokenUnreadable,
)
from django_quota.fields import Sealed
from django_quota.models import PendingRevocation, QuotaToken, WebhookEvent
from django_quota.oidc import endpoints

from . import first_look

__all__ = ["prune"]

logger = logging.getLogger("django_quota.revocation")

#: Rows that are revoked or deleted at once.
BATCH = 1000
#: This many failures in a row count as an outage: each may have taken QUOTA_DEADLINE seconds.
OUTAGE = 5
_NOT_OFFERED = (
    "Quota offers no revocation: its discovery document names no revocation_endpoint. The tokens "
    "are kept in case it offers one later, and deleted at their end date."
)
#: How long a handled webhook event is kept: longer than one is accepted
#: (`webhook_delivery.MAX_AGE`), or a replay would find nothing that says it was handled.
EVENT_PERIOD = timedelta(days=30)


def queue(token: str | Sealed, *, using: str | None = None, hint: str = "refresh_token") -> None:
    """Queue `token` for revocation. Call it in the transaction that drops the token.

    `using` is the database of that transaction, by default the router's answer. A token that cannot
    be decrypted is queued unchanged, because its key may be restored.
    """
    if token:
        PendingRevocation.objects.using(using).create(token=token, token_type_hint=hint)


def queue_unless_kept(token: str | Sealed, row: QuotaToken | None, *, using: str) -> None:
    """Queue `token` unless `row` still uses it: a provider need not rotate refresh tokens."""
    if not token:
        return
    sealed = token if isinstance(token, Sealed) else Sealed.of(token)
    if row is None or not row.refresh_token.same_secret(sealed):
        queue(sealed, using=using)


def queue_deleted(*, instance: QuotaToken, using: str, **kwargs: Any) -> None:
    """Receiver of `pre_delete`: queue the token of a row that is deleted, also with its user.

    The row is locked first, because a renewal may be replacing the token at this moment.
    """
    first_look.forget()
    rows = QuotaToken.objects.using(using).select_for_update()
    row = rows.filter(pk=instance.pk).first()
    if row is not None:
        queue(row.refresh_token, using=using)


@dataclass(kw_only=True)
class Pruned:
    """The result of `prune`, in tokens. `stopped` says why it ended early, "" if it did not."""

    revoked: int = 0
    #: Deleted at their end date without a revocation.
    wiped: int = 0
    left: int = 0
    stopped: str = ""
    #: Handled webhook events that were deleted.
    events: int = 0
    #: Not revoked by Quota; the next run tries them again.
    failed: int = 0
    #: True if it ended early because of a setting. The next run would end in the same way.
    misconfigured: bool = False


def prune() -> Pruned:
    """Revoke the tokens in the queue, and delete old rows.

    It deletes tokens that could not be revoked for `REVOCATION_PERIOD` (30 days), and handled
    webhook events that are older than `EVENT_PERIOD` (30 days). Call it every few minutes, from
    cron or Celery for example.

    Raises no QuotaError. A token that fails stays for the next run, which tries it last. The run
    ends early after OUTAGE failures in a row, if Quota cannot be reached, at a rate limit, and if a
    setting is wrong.
    """
    done = _work_off(None)
    due = PendingRevocation.objects.filter(expires_at__lte=timezone.now())
    done.wiped, _of_each_model = due.delete()
    done.left = PendingRevocation.objects.count()
    done.events = _forget_events()
    return done


def _forget_events() -> int:
    """Delete the handled webhook events that are older than EVENT_PERIOD. Returns their number."""
    events = WebhookEvent.objects.using(router.db_for_write(WebhookEvent))
    due = events.filter(received_at__lte=timezone.now() - EVENT_PERIOD)
    handled = due.exclude(handled_at=None).order_by("pk")
    total = 0
    while batch := list(handled.values_list("pk", flat=True)[:BATCH]):
        total += events.filter(pk__in=batch).delete()[0]
    return total


def revoke_pending(limit: int = BATCH) -> int:
    """Revoke up to `limit` tokens of the queue, those with the fewest attempts first.

    Returns how many were revoked. Raises no QuotaError: a token that fails stays in the queue.
    """
    return _work_off(limit).revoked


def _work_off(limit: int | None) -> Pruned:
    """Ask Quota once for each token in the queue, up to `limit` tokens, to revoke it (RFC 7009)."""
    done, in_a_row = Pruned(), 0
    for pending in _waiting(limit):
        try:
            offered = endpoints.revoke(pending.token.reveal(), pending.token_type_hint)
        except TokenUnreadable as error:
            _put_off(pending, error)
        except QuotaError as error:
            _put_off(pending, error)
            done.failed += 1
            in_a_row += 1
            if in_a_row == OUTAGE or _affects_all_tokens(error):
                done.stopped = str(error)
                done.misconfigured = isinstance(error, ConfigurationError)
                break
        else:
            if not offered:
                done.stopped = _NOT_OFFERED
                break
            pending.delete()
            done.revoked += 1
            in_a_row = 0
    return done


def _affects_all_tokens(error: QuotaError) -> bool:
    """Return True if every other token would meet the same error."""
    unreachable = isinstance(error, ProviderUnavailable) and not error.request_sent
    return unreachable or isinstance(error, ConfigurationError | RateLimited)


def _waiting(limit: int | None) -> Iterator[PendingRevocation]:
    """Yield the tokens in the queue, those with the fewest attempts first.

    It leaves out tokens that another process revokes meanwhile. The keys are read first, because a
    failure changes the order, and a token would come twice.
    """
    rows = PendingRevocation.objects.order_by("attempts", "pk")
    for pk in list(rows.values_list("pk", flat=True)[:limit]):
        yield from PendingRevocation.objects.filter(pk=pk)


def _put_off(pending: PendingRevocation, error: QuotaError) -> None:
    logger.warning("revocation %s put off: %s", pending.pk, error)
    # Not save(), which would create a row that another process has deleted.
    PendingRevocation.objects.filter(pk=pending.pk).update(attempts=F("attempts") + 1)
