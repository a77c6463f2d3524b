"""The view for Quota's webhooks (quota-protocol section 15): each event is handled once.

An event is stored and committed before it is handled. If handling fails, the response is a 5xx, and
Quota delivers the event again.
"""

import logging
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.db import router
from django.db.models import F
from django.http import HttpRequest, JsonResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from django_quota import accounts
from django_quota.exceptions import ProviderUnavailable, new_reference
from django_quota.models import WebhookEvent
from django_quota.signals import webhook_received
from django_quota.tokens.clock import Clock
from django_quota.tokens.leases import Lease
from django_quota.tokens.locking import REFUSALS

from .responses import add_private_headers, log_as_warning, outside_transactions
from .webhook_delivery import Delivery, DeliveryRefused, is_identifier, read_delivery
from .webhook_events import apply_event

logger = logging.getLogger("django_quota.webhooks")

#: Seconds after which another delivery may handle an event, because the first handler has died.
LEASE_SECONDS = 60


@csrf_exempt
@require_POST
@login_not_required
@outside_transactions
def webhook(request: HttpRequest) -> JsonResponse:
    """POST webhook: a delivery from Quota. 404 without QUOTA_WEBHOOK_SECRET.

    =======  ====================================================================================
    200      handled, now or before
    4xx      not signed by Quota, not an event, too old, or another event with the same id
    500      a receiver has failed; deliver it again
    503      another process is handling it, the database refuses it (it is read-only, say), or
             Quota is away while the event needs a call to it; deliver it again
    =======  ====================================================================================
    """
    try:
        response = _response(_handle(read_delivery(request)))
    except DeliveryRefused as refused:
        logger.warning("webhook refused: %s", refused)
        response = _response(refused.status)
    except REFUSALS as error:
        logger.warning("webhook postponed: the database refuses it: %s", type(error).__name__)
        response = _response(503)
    return log_as_warning(response, request) if response.status_code == 503 else response


def _response(status: int) -> JsonResponse:
    headers = {"Retry-After": "5"} if status == 503 else {}
    body = {"received": status == 200}
    return add_private_headers(JsonResponse(body, status=status, headers=headers))


def _handle(delivery: Delivery) -> int:
    """Store the event, handle it unless that has been done, and return the response's status."""
    user = _find_user(delivery.data.get("user_id"))
    WebhookEvent.objects.using(_alias()).bulk_create(
        [
            WebhookEvent(
                event_id=delivery.id,
                type=delivery.type,
                user=user,
                body=delivery.body,
                created_at=delivery.created_at,
            )
        ],
        ignore_conflicts=True,  # of two deliveries at once, the database keeps the first
    )
    event = WebhookEvent.objects.using(_alias()).get(event_id=delivery.id)
    if event.body != delivery.body:
        raise DeliveryRefused(409, "another event of this id was delivered before")
    if event.handled_at is not None:
        return 200
    event.claimed_until = _claim(event)
    return 503 if event.claimed_until is None else _handle_claimed(event, user)


def _alias() -> str:
    return router.db_for_write(WebhookEvent)


def _rows(event: WebhookEvent) -> Any:
    return WebhookEvent.objects.using(_alias()).filter(pk=event.pk)


def _claim(event: WebhookEvent) -> datetime | None:
    """Take the lease of `event`, and return its end. None if another process holds the lease, or
    has just handled the event."""
    now = Clock.of(_alias()).now()
    until = now + timedelta(seconds=LEASE_SECONDS)
    unhandled = _rows(event).filter(handled_at=None).exclude(Lease.held("claimed_until", now))
    return until if unhandled.update(claimed_until=until, attempts=F("attempts") + 1) else None


def _handle_claimed(event: WebhookEvent, user: Any) -> int:
    """Apply the event, then send `webhook_received` to the project; return the response's status.

    What the handlers save is committed at once. After a failure, all of them run again.
    """
    try:
        apply_event(event, user)
        webhook_received.send(sender=WebhookEvent, event=event, user=user)
    except Exception as error:
        status = _log_failure(event, error)
        # Give back our own lease only: it may have ended, and another process have taken its own.
        own = _rows(event).filter(claimed_until=event.claimed_until)
        own.update(claimed_until=None, last_failure=type(error).__name__[:100])
        return status
    _rows(event).update(handled_at=timezone.now(), claimed_until=None, last_failure="")
    return 200


def _log_failure(event: WebhookEvent, error: Exception) -> int:
    """Log why handling failed, and return the response's status.

    An outage of Quota is not an error of this site, so it is a warning (`log_as_warning`).
    """
    if isinstance(error, ProviderUnavailable):
        logger.warning("webhook %s (%s) postponed: %s", event.event_id, event.type, error)
        return 503
    reference = new_reference()
    logger.exception("webhook %s (%s) failed [%s]", event.event_id, event.type, reference)
    return 500


def _find_user(user_id: object) -> Any:
    """The user with this `sub`; None if this site does not know it."""
    if not is_identifier(user_id):
        return None
    account = accounts.find(user_id)
    return None if account is None else account.user
