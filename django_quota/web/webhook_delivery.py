"""Reads a webhook delivery: its signature, its size, its age and its fields (quota-protocol section
15).

Quota signs the body and nothing else, so a delivery can be replayed. Too old ones are refused here;
`webhooks` handles each `id` once.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeGuard

from django.conf import settings
from django.http import HttpRequest, UnreadablePostError
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from django_quota.conf import get_settings

#: Limit of a body. Quota's have some hundred bytes.
MAX_BYTES = 64_000
#: The oldest event that is accepted. Longer than any span of redeliveries, which Quota does not
#: document, and much shorter than the time for which events are kept (`revocation.EVENT_PERIOD`).
MAX_AGE = timedelta(days=3)
#: How far Quota's clock may be ahead of ours.
MAX_AHEAD = timedelta(minutes=5)
_IDENTIFIER = re.compile(r"[!-~]{1,255}")


class DeliveryRefused(Exception):
    """A delivery is not accepted: the status to answer with, and the reason for the log."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One event as Quota delivered it. `body` is the text that was signed."""

    id: str
    type: str
    created_at: datetime
    data: dict[str, Any]
    body: str


def verify(payload: bytes, signature: str, secrets: Iterable[str]) -> bool:
    """Return True if `signature` is the hex HMAC-SHA256 of the raw body with one of `secrets`
    (`whsec_...`), in constant time (quota-protocol section 15)."""
    found = False
    for secret in secrets:
        expected = hmac.new(secret.encode(), payload, hashlib.sha256).hexdigest()
        found |= constant_time_compare(signature.lower(), expected)
    return found


def is_identifier(value: object) -> TypeGuard[str]:
    """True for what may be an id or a type: 1 to 255 visible ASCII characters."""
    return isinstance(value, str) and _IDENTIFIER.fullmatch(value) is not None


def read_delivery(request: HttpRequest) -> Delivery:
    """Return the delivery that Quota has signed. Raises DeliveryRefused for any other request."""
    secrets = get_settings().webhook_secret
    if not secrets:
        raise DeliveryRefused(404, "QUOTA_WEBHOOK_SECRET is not set")
    body = _read_body(request)
    if not verify(body, request.headers.get("X-Quota-Signature", ""), secrets):
        raise DeliveryRefused(403, "the signature was not made with QUOTA_WEBHOOK_SECRET")
    delivery = _parse(body)
    age = timezone.now() - delivery.created_at
    if age > MAX_AGE:
        raise DeliveryRefused(
            400, "the event is older than three days: a replay, or this clock is wrong"
        )
    if age < -MAX_AHEAD:
        raise DeliveryRefused(
            400, "the event's time is in the future: this clock is wrong, or Quota's"
        )
    return delivery


def _read_body(request: HttpRequest) -> bytes:
    # Check the announced length before reading, and the read length too: a server may not pass on
    # the header.
    announced = request.headers.get("Content-Length") or "0"
    if not announced.isascii() or not announced.isdigit() or int(announced[:18]) > MAX_BYTES:
        raise DeliveryRefused(413, "the body is too large")
    try:
        body = request.read(MAX_BYTES + 1)
    except UnreadablePostError:
        raise DeliveryRefused(400, "the body did not arrive") from None
    # For middlewares that log `request.body` after this view: Django raises an error there, unless
    # the body was read through `request.body`, which does not know our limit.
    if not hasattr(request, "_body"):
        request._body = body
    if len(body) > MAX_BYTES:
        raise DeliveryRefused(413, "the body is too large")
    return bytes(body)


def _parse(body: bytes) -> Delivery:
    try:
        text = body.decode()
        event = json.loads(text)
    except (ValueError, RecursionError):
        raise DeliveryRefused(400, "the body is not JSON") from None
    if not isinstance(event, dict) or not isinstance(event.get("data"), dict):
        raise DeliveryRefused(400, "the body is not an event with data")
    event_id, event_type = event.get("id"), event.get("type")
    if not is_identifier(event_id):
        raise DeliveryRefused(400, "the event has no usable id")
    if not is_identifier(event_type) or len(event_type) > 100:
        raise DeliveryRefused(400, "the event has no usable type")
    created_at = _parse_time(event.get("created_at"))
    return Delivery(
        id=event_id, type=event_type, created_at=created_at, data=event["data"], body=text
    )


def _parse_time(value: object) -> datetime:
    """The time in ISO 8601; in UTC if it names no time zone. Naive if USE_TZ is off."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        if moment is not None:
            moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
            return moment if settings.USE_TZ else timezone.make_naive(moment)
    except (ValueError, OverflowError):
        pass
    raise DeliveryRefused(400, "the event has no usable created_at")
