"""The view for Quota's webhooks (quota-protocol section 15): each event is handled once.

An event is stored and committed before it is handled. If handling fails, the response is a 5xx, and
Quota delivers the event again.
"""

import logging
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from django_quota.exceptions import ProviderUnavailable, new_reference
from django_quota.models import WebhookEvent
from django_quota.signals import webhook_received
from django_quota.tokens.locking import REFUSALS

from . import webhook_rows
from .responses import add_private_headers, log_as_warning, outside_transactions
from .webhook_delivery import Delivery, DeliveryRefused, read_delivery
from .webhook_events import apply_event

logger = logging.getLogger("django_quota.webhooks")


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
    known = webhook_rows.look_up(delivery)
    if known.is_handled:
        return 200
    event = webhook_rows.find_event(delivery) if known.is_stored else None
    if event is None:
        event = webhook_rows.store_claimed(delivery, known)
    elif event.handled_at is not None:
        return 200
    elif not webhook_rows.claim(event, known.clock):
        event = None
    # Without an event, another delivery of it is being handled, or was handled just now.
    return 503 if event is None else _handle_claimed(event, known.user)


def _handle_claimed(event: WebhookEvent, user: Any) -> int:
    """Apply the event, then send `webhook_received` to the project; return the response's status.

    What the handlers save is committed at once. After a failure, all of them run again.
    """
    try:
        apply_event(event, user)
        webhook_received.send(sender=WebhookEvent, event=event, user=user)
    except Exception as error:
        status = _log_failure(event, error)
        webhook_rows.give_back(event, type(error).__name__[:100])
        return status
    webhook_rows.end(event)
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
