"""What Quota tells us by itself (quota-protocol section 15): each event is handled once.

Quota signs the body and nothing else, so a delivery can be replayed: each `id` is handled once, and
one that was created too long ago not at all. An event is stored and committed before anybody hears
of it. Whoever fails to handle it makes this answer with a 5xx, and Quota deliver it again.
"""

import hashlib
import hmac
import json
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.db import router
from django.db.models import F, Q
from django.http import HttpRequest, JsonResponse, UnreadablePostError
from django.utils import timezone
from django.utils.crypto import constant_time_compare
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from . import accounts, tokens
from .balances import Balance, forget_balance, keep_balance
from .conf import get_settings
from .exceptions import NotConnected, ReauthenticationRequired, TokenUnreadable
from .messages import new_reference
from .models import QuotaToken, WebhookEvent
from .money import whole_number
from .signals import balance_low, webhook_received
from .web import outside_transactions, private

__all__ = ["MAX_AGE", "MAX_BYTES", "verify", "webhook"]

logger = logging.getLogger("django_quota.webhooks")

#: Bytes of a body; an honest one has some hundreds.
MAX_BYTES = 64_000
#: How old an event may be. Wider than any span of redeliveries, which Quota does not document, and
#: far shorter than the time for which events are kept (`revocation.EVENT_PERIOD`).
MAX_AGE = timedelta(days=3)
#: By how much Quota's clock may be ahead of ours.
MAX_AHEAD = timedelta(minutes=5)
#: Seconds after which whoever was handling an event is taken for dead.
LEASE = 60
_NAME = re.compile(r"[!-~]{1,255}")


class _Refused(Exception):
    """A delivery that is not taken: the answer's status, and the reason for the log."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, kw_only=True)
class _Delivery:
    id: str
    type: str
    created_at: datetime
    data: dict[str, Any]
    body: str


def verify(payload: bytes, signature: str, secrets: Iterable[str]) -> bool:
    """Is `signature` the hex HMAC-SHA256 of the raw body with one of these `whsec_...`?

    In constant time, whatever the header is; quota-protocol section 15.
    """
    found = False
    for secret in secrets:
        expected = hmac.new(secret.encode(), payload, hashlib.sha256).hexdigest()
        found |= constant_time_compare(signature.lower(), expected)
    return found


@csrf_exempt
@require_POST
@login_not_required
@outside_transactions
def webhook(request: HttpRequest) -> JsonResponse:
    """POST webhook: a delivery of Quota's. 404 without QUOTA_WEBHOOK_SECRET.

    =======  ====================================================================================
    200      handled, now or before
    4xx      not Quota's, not an event, too old, or another event of the same id
    500      a receiver has failed; deliver it again
    503      somebody else is handling it at this moment; deliver it again
    =======  ====================================================================================
    """
    try:
        return _answer(_handle(_delivery(request)))
    except _Refused as refused:
        logger.warning("webhook refused: %s", refused)
        return _answer(refused.status)


def _answer(status: int) -> JsonResponse:
    headers = {"Retry-After": "5"} if status == 503 else {}
    return private(JsonResponse({"received": status == 200}, status=status, headers=headers))


def _delivery(request: HttpRequest) -> _Delivery:
    """What was delivered, once it is known to be Quota's."""
    secrets = get_settings().webhook_secret
    if not secrets:
        raise _Refused(404, "QUOTA_WEBHOOK_SECRET is not set")
    body = _body(request)
    if not verify(body, request.headers.get("X-Quota-Signature", ""), secrets):
        raise _Refused(403, "the signature is not one of QUOTA_WEBHOOK_SECRET's")
    delivery = _parsed(body)
    age = timezone.now() - delivery.created_at
    if age > MAX_AGE:
        raise _Refused(400, "the event is older than three days: a replay, or this clock is wrong")
    if age < -MAX_AHEAD:
        raise _Refused(400, "the event is of the future: this clock is wrong, or Quota's")
    return delivery


def _body(request: HttpRequest) -> bytes:
    # By what it says before it is read, and by what was read: a server may leave out the length.
    announced = request.headers.get("Content-Length") or "0"
    if not announced.isascii() or not announced.isdigit() or int(announced[:18]) > MAX_BYTES:
        raise _Refused(413, "the body is too large")
    try:
        body = request.read(MAX_BYTES + 1)
    except UnreadablePostError:
        raise _Refused(400, "the body did not arrive") from None
    if len(body) > MAX_BYTES:
        raise _Refused(413, "the body is too large")
    return bytes(body)


def _parsed(body: bytes) -> _Delivery:
    try:
        text = body.decode()
        event = json.loads(text)
    except (ValueError, RecursionError):
        raise _Refused(400, "the body is no JSON") from None
    if not isinstance(event, dict) or not isinstance(event.get("data"), dict):
        raise _Refused(400, "the body is no event with data")
    event_id, kind = event.get("id"), event.get("type")
    if not isinstance(event_id, str) or not _NAME.fullmatch(event_id):
        raise _Refused(400, "the event has no usable id")
    if not isinstance(kind, str) or not _NAME.fullmatch(kind) or len(kind) > 100:
        raise _Refused(400, "the event has no usable type")
    created_at = _moment(event.get("created_at"))
    return _Delivery(id=event_id, type=kind, created_at=created_at, data=event["data"], body=text)


def _moment(value: object) -> datetime:
    """ISO 8601, in UTC where it does not say otherwise."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        if moment is not None:
            moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
            return moment if settings.USE_TZ else timezone.make_naive(moment)
    except (ValueError, OverflowError):
        pass
    raise _Refused(400, "the event has no usable created_at")


def _handle(delivery: _Delivery) -> int:
    """Store the event, then handle it unless that has been done; the status to answer with."""
    user = _user(delivery.data.get("user_id"))
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
        ignore_conflicts=True,  # the database knows who is first, and no transaction is broken
    )
    event = WebhookEvent.objects.using(_alias()).get(event_id=delivery.id)
    if event.body != delivery.body:
        raise _Refused(409, "another event of this id was delivered before")
    if event.handled_at is not None:
        return 200
    event.claimed_until = _claim(event)
    return 503 if event.claimed_until is None else _tell(event, user)


def _alias() -> str:
    return router.db_for_write(WebhookEvent)


def _rows(event: WebhookEvent) -> Any:
    return WebhookEvent.objects.using(_alias()).filter(pk=event.pk)


def _claim(event: WebhookEvent) -> datetime | None:
    """When the lease ends; None if somebody else is at it, or has just done it."""
    now = timezone.now()
    until = now + timedelta(seconds=LEASE)
    free = Q(claimed_until=None) | Q(claimed_until__lte=now)
    # One much longer than any is of a clock that has been set back since. Not one that is a little
    # longer: who takes it at this moment has looked at the clock after us, or at another clock.
    free |= Q(claimed_until__gt=until + timedelta(seconds=LEASE))
    unhandled = _rows(event).filter(free, handled_at=None)
    return until if unhandled.update(claimed_until=until, attempts=F("attempts") + 1) else None


def _tell(event: WebhookEvent, user: Any) -> int:
    """Do our part, then tell the project. Committed already: what fails here is done again."""
    try:
        _OURS.get(event.type, _nothing)(event, user)
        webhook_received.send(sender=WebhookEvent, event=event, user=user)
    except Exception as error:
        reference = new_reference()
        logger.exception("webhook %s (%s) failed [%s]", event.event_id, event.type, reference)
        # Not the lease of somebody who has taken this one for dead.
        mine = _rows(event).filter(claimed_until=event.claimed_until)
        mine.update(claimed_until=None, last_failure=type(error).__name__[:100])
        return 500
    _rows(event).update(handled_at=timezone.now(), claimed_until=None, last_failure="")
    return 200


def _user(user_id: object) -> Any:
    """The user with this `sub`, None if they are not known here."""
    if not isinstance(user_id, str) or not _NAME.fullmatch(user_id):
        return None
    account = accounts.find(user_id)
    return None if account is None else account.user


def _nothing(event: WebhookEvent, user: Any) -> None:
    """Of no consequence to us; the project may think otherwise."""


def _balance_updated(event: WebhookEvent, user: Any) -> None:
    credits = whole_number(event.data.get("new_balance"))
    if user is not None and credits is not None:
        balance = Balance(credits=credits)
        keep_balance(user, balance, as_of=event.created_at.timestamp(), told=True)


def _balance_low(event: WebhookEvent, user: Any) -> None:
    credits = whole_number(event.data.get("current_balance"))
    threshold = whole_number(event.data.get("threshold"))
    if user is not None and credits is not None and threshold is not None:
        balance = Balance(credits=credits)
        balance_low.send(sender=WebhookEvent, user=user, balance=balance, threshold=threshold)


def _user_disconnected(event: WebhookEvent, user: Any) -> None:
    """Wipe the tokens that Quota has ended; only those.

    Nothing in the event says which. Of a user who has signed in twice, the first grant is revoked
    by ourselves (`quota_prune`), and Quota may tell of that, too. So the tokens are renewed: those
    of a grant that has ended cannot be.
    """
    account = None if user is None else accounts.account_of(user)
    if account is None:
        return
    forget_balance(user)
    if not QuotaToken.objects.filter(account=account, updated_at__lte=event.created_at).exists():
        return  # they were written since
    try:
        tokens.renew(account)
    except (NotConnected, ReauthenticationRequired, TokenUnreadable):
        accounts.wipe_tokens(user, unless_newer_than=event.created_at)


_OURS: dict[str, Callable[[WebhookEvent, Any], None]] = {
    "balance.updated": _balance_updated,
    "balance.low": _balance_low,
    "user.disconnected": _user_disconnected,
}
