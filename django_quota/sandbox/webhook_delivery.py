"""Delivery of webhook events: signs them, posts them in a thread, and retries failures."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import queue
import secrets
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import requests
from django.db import transaction

from .models import Application, User, Webhook
from .state import state

__all__ = ["notify", "notify_low_balance"]

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 5
#: The pause before the second attempt; it doubles with each further attempt.
FIRST_RETRY_SECONDS = 0.5
MAX_ATTEMPTS = 8


def notify(event_type: str, user: User, developer: User | None, /, **data: Any) -> None:
    """Send an event about a user once the transaction is committed.

    The event goes to the webhooks of the developer, or to all if ``developer`` is None.
    """
    hooks = Webhook.objects.all()
    if developer is not None:
        hooks = hooks.filter(user=developer)
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    event = {
        "id": f"evt_{secrets.token_hex(12)}",
        "type": event_type,
        "created_at": now,
        "data": {"user_id": str(user.pk)} | data,
    }
    body = json.dumps(event).encode()
    for hook in hooks:
        if event_type in hook.events:
            transaction.on_commit(partial(_deliveries.add, _Delivery(hook, body)))


def notify_low_balance(user: User, application: Application, before: int, after: int) -> None:
    """Send ``balance.low`` for each webhook threshold that the balance has fallen below."""
    for threshold in {
        hook.low_balance_threshold
        for hook in Webhook.objects.filter(user=application.user)
        if hook.low_balance_threshold is not None
    }:
        if after < threshold <= before:
            notify(
                "balance.low", user, application.user, current_balance=after, threshold=threshold
            )


@dataclass(frozen=True)
class _Delivery:
    """One event for one webhook."""

    hook: Webhook
    body: bytes
    attempt: int = 1

    def send(self) -> bool:
        """Post the event; return True if the receiver accepted it."""
        signature = hmac.new(self.hook.secret.encode(), self.body, hashlib.sha256).hexdigest()
        headers = {"X-Quota-Signature": signature, "Content-Type": "application/json"}
        try:
            reply = requests.post(
                self.hook.url,
                data=self.body,
                headers=headers,
                timeout=TIMEOUT_SECONDS,
                allow_redirects=False,
            )
        except Exception as error:
            # A receiver may answer anything. For a broken Location header, requests raises errors
            # that are no RequestException, and they would end the thread.
            logger.debug("webhook %s: %s", self.hook.url, type(error).__name__)
            return False
        return reply.ok


class _DeliveryQueue:
    """Sends the deliveries of each webhook one after the other, and retries those that fail.

    Each webhook has a thread of its own, so that a receiver which does not answer delays no other.
    The queues are in memory: deliveries that are still waiting when the sandbox stops are lost.
    """

    def __init__(self) -> None:
        self._queues: dict[Any, queue.SimpleQueue[_Delivery]] = {}
        self._lock = threading.Lock()

    def add(self, delivery: _Delivery) -> None:
        with self._lock:
            waiting = self._queues.get(delivery.hook.pk)
            if waiting is None:
                waiting = queue.SimpleQueue()
                thread = threading.Thread(target=self._send_forever, args=[waiting], daemon=True)
                thread.start()
                self._queues[delivery.hook.pk] = waiting
        waiting.put(delivery)

    def _send_forever(self, waiting: queue.SimpleQueue[_Delivery]) -> None:
        while True:
            delivery = waiting.get()
            accepted = [delivery.send() for _ in range(state.knobs.webhook_copies)]
            if not all(accepted):
                self._retry(delivery)

    def _retry(self, delivery: _Delivery) -> None:
        url, attempt = delivery.hook.url, delivery.attempt
        logger.warning("webhook not delivered to %s, attempt %d of %d", url, attempt, MAX_ATTEMPTS)
        if attempt < MAX_ATTEMPTS:
            pause = FIRST_RETRY_SECONDS * 2 ** (attempt - 1)
            timer = threading.Timer(pause, self.add, [replace(delivery, attempt=attempt + 1)])
            timer.daemon = True
            with suppress(RuntimeError):  # no thread can be started while the sandbox stops
                timer.start()


_deliveries = _DeliveryQueue()
