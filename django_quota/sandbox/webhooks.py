"""Webhooks: POST and GET /v1/webhooks, DELETE /v1/webhooks/<id>, and their delivery."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import queue
import secrets
import threading
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import requests
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse

from .accounts import require_developer
from .api import ApiError, bad_request, json_view, read_json
from .models import Application, User, Webhook
from .state import state
from .uris import check_uri

__all__ = ["TYPES", "notify", "webhook_detail", "webhooks"]

TYPES = (
    "user.connected",
    "user.disconnected",
    "balance.updated",
    "balance.low",
    "usage.completed",
)
logger = logging.getLogger("django_quota.sandbox.webhooks")

TIMEOUT = 5
FIRST_PAUSE, TRIES = 0.5, 8


@json_view("GET", "POST")
def webhooks(request: HttpRequest) -> JsonResponse:
    """List the developer's webhooks, or make one; only then its secret is shown."""
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
    """Delete a webhook of the developer's."""
    deleted, _ = Webhook.objects.filter(
        user=require_developer(request).user, pk=webhook_id
    ).delete()
    if not deleted:
        raise ApiError(404, "not_found", "You have no such webhook.")
    return HttpResponse(status=204)


def _read_events(data: dict[str, Any]) -> list[str]:
    events = data.get("events", list(TYPES))
    if not isinstance(events, list) or not events or any(e not in TYPES for e in events):
        raise bad_request(f"events must be a list out of {', '.join(TYPES)}.")
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


def notify(kind: str, user: User, application: Application | None, /, **data: Any) -> None:
    """Tell the developer of the app, or of any app, once the transaction is committed."""
    hooks = Webhook.objects.all()
    if application is not None:
        hooks = hooks.filter(user=application.user)
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    event = {
        "id": f"evt_{secrets.token_hex(12)}",
        "type": kind,
        "created_at": now,
        "data": {"user_id": str(user.pk)} | data,
    }
    body = json.dumps(event).encode()
    for hook in hooks:
        if kind in hook.events:
            transaction.on_commit(partial(_courier.send, _Delivery(hook, body)))


def notify_low(user: User, application: Application, before: int, after: int) -> None:
    """Tell each webhook whose threshold lies between the two balances."""
    for threshold in {
        hook.low_balance_threshold
        for hook in Webhook.objects.filter(user=application.user)
        if hook.low_balance_threshold is not None
    }:
        if after < threshold <= before:
            notify("balance.low", user, application, current_balance=after, threshold=threshold)


@dataclass(frozen=True)
class _Delivery:
    hook: Webhook
    body: bytes
    tries: int = 1

    def attempt(self) -> bool:
        signature = hmac.new(self.hook.secret.encode(), self.body, hashlib.sha256).hexdigest()
        headers = {"X-Quota-Signature": signature, "Content-Type": "application/json"}
        try:
            reply = requests.post(
                self.hook.url,
                data=self.body,
                headers=headers,
                timeout=TIMEOUT,
                allow_redirects=False,
            )
        except requests.RequestException:
            return False
        return reply.ok


class _Courier:
    """Delivers in the order of events, in a thread of its own; what fails, again and again later.

    What is not delivered when the sandbox stops is lost.
    """

    def __init__(self) -> None:
        self._queue: queue.Queue[_Delivery] = queue.Queue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def send(self, delivery: _Delivery) -> None:
        self._queue.put(delivery)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while True:
            delivery = self._queue.get()
            copies = [delivery.attempt() for _ in range(state.knobs.webhook_copies)]
            if not all(copies):
                where, tries = delivery.hook.url, delivery.tries
                logger.warning("webhook not delivered to %s, try %d of %d", where, tries, TRIES)
                if tries < TRIES:
                    self._later(delivery)

    def _later(self, delivery: _Delivery) -> None:
        again = _Delivery(delivery.hook, delivery.body, delivery.tries + 1)
        timer = threading.Timer(FIRST_PAUSE * 2 ** (delivery.tries - 1), self.send, [again])
        timer.daemon = True
        timer.start()


_courier = _Courier()
