"""Giving tokens back: what is dropped here is revoked at Quota (RFC 7009), if need be later.

The token goes into the queue in the transaction that drops it, so that it survives the row, the
user and an outage of Quota's.
"""

import logging
from typing import Any

from django.db.models import F
from django.views.decorators.debug import sensitive_variables

from . import provider
from .exceptions import QuotaError, TokenUnreadable
from .models import PendingRevocation, QuotaToken

__all__ = ["queue", "queue_deleted", "queue_unless_kept", "readable", "revoke_pending"]

logger = logging.getLogger("django_quota.revocation")


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
    """Receiver of `pre_delete`: disconnecting, and deleting a user, revoke at Quota too."""
    queue(readable(instance, "refresh_token"))


@sensitive_variables()
def revoke_pending(limit: int = 1000) -> int:
    """Work off the revocation queue (RFC 7009), oldest first; how many were revoked.

    Raises nothing of Quota's: what fails stays in the queue, and the first failure ends the run.
    """
    done = 0
    for pending in PendingRevocation.objects.defer("token").order_by("attempts", "pk")[:limit]:
        try:
            provider.revoke(pending.token, pending.token_type_hint)
        except QuotaError as error:
            logger.warning("revocation %s put off: %s", pending.pk, error)
            # Not save(): another process may have done with it meanwhile.
            PendingRevocation.objects.filter(pk=pending.pk).update(attempts=F("attempts") + 1)
            if isinstance(error, TokenUnreadable):
                continue
            break
        pending.delete()
        done += 1
    return done
