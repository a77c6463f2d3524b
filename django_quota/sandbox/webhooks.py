"""The webhook endpoints: POST and GET /v1/webhooks, DELETE /v1/webhooks/<id>."""

from __future__ import annotations

import secrets
import uuid
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse

from .accounts import require_developer
from .api import ApiError, bad_request, json_view, read_json
from .models import Webhook
from .uris import check_uri

__all__ = ["webhook_detail", "webhooks"]

EVENT_TYPES = (
    "user.connected",
    "user.disconnected",
    "balance.updated",
    "balance.low",
    "usage.completed",
)


@json_view("GET", "POST")
def webhooks(request: HttpRequest) -> JsonResponse:
    """List the developer's webhooks, or create one.

    Only the reply that creates a webhook contains its secret.
    """
    developer = require_developer(request).user
    if request.method == "GET":
        hooks = Webhook.objects.filter(user=developer).order_by("created")
        return JsonResponse({"webhooks": [_describe(hook) for hook in hooks]})
    data = read_json(request)
    hook = Webhook.objects.create(
        user=developer,
        url=check_uri("url", data.get("url")),
        events=_read_events(data),
        low_balance_threshold=_read_threshold(data),
        secret=f"whsec_{secrets.token_urlsafe(32)}",
    )
    return JsonResponse(_describe(hook) | {"secret": hook.secret}, status=201)


@json_view("DELETE")
def webhook_detail(request: HttpRequest, webhook_id: uuid.UUID) -> HttpResponse:
    """Delete one of the developer's webhooks."""
    developer = require_developer(request).user
    deleted, _ = Webhook.objects.filter(user=developer, pk=webhook_id).delete()
    if not deleted:
        raise ApiError(404, "not_found", "You have no webhook with this id.")
    return HttpResponse(status=204)


def _read_events(data: dict[str, Any]) -> list[str]:
    events = data.get("events", list(EVENT_TYPES))
    if not isinstance(events, list) or not events or any(e not in EVENT_TYPES for e in events):
        raise bad_request(f"events must be a list of one or more of {', '.join(EVENT_TYPES)}.")
    return list(events)


def _read_threshold(data: dict[str, Any]) -> int | None:
    threshold = data.get("low_balance_threshold")
    if threshold is not None and not (type(threshold) is int and 0 <= threshold < 10**15):
        raise bad_request("low_balance_threshold must be an integer of credits, 0 or more.")
    return threshold


def _describe(hook: Webhook) -> dict[str, Any]:
    return {
        "id": str(hook.pk),
        "url": hook.url,
        "events": hook.events,
        "low_balance_threshold": hook.low_balance_threshold,
    }
