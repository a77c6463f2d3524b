"""What this package does about each type of webhook event."""

from collections.abc import Callable
from typing import Any

from django_quota import accounts, connecting
from django_quota.exceptions import NotConnected, ReauthenticationRequired
from django_quota.models import WebhookEvent
from django_quota.money import whole_number
from django_quota.signals import balance_low
from django_quota.tokens import access
from django_quota.tokens.lookup import token_row_of_account
from django_quota.wallet.balances import Balance, forget_balance


def apply_event(event: WebhookEvent, user: Any) -> None:
    """Update balance and tokens of `user`, who may be None; nothing for types without a handler."""
    if (handler := _HANDLERS.get(event.type)) is not None:
        handler(event, user)


def _balance_updated(event: WebhookEvent, user: Any) -> None:
    """Forget the balance. The event's own may be older than one that is known: deliveries come late
    and in any order."""
    if user is not None:
        forget_balance(user, anew=False)  # `webhooks` has just read which wallet it is


def _balance_low(event: WebhookEvent, user: Any) -> None:
    credits = whole_number(event.data.get("current_balance"))
    threshold = whole_number(event.data.get("threshold"))
    if user is not None and credits is not None and threshold is not None:
        balance = Balance(credits=credits)
        balance_low.send(sender=WebhookEvent, user=user, balance=balance, threshold=threshold)


def _user_disconnected(event: WebhookEvent, user: Any) -> None:
    """Wipe the tokens that Quota has ended, and only those.

    The event does not name them. If a user has signed in twice, we revoke the first grant ourselves
    (`quota_prune`), and Quota may send an event for that, too. So try to renew the tokens: those of
    an ended grant cannot be renewed.
    """
    account = None if user is None else accounts.account_of(user)
    if account is None:
        return
    forget_balance(user)
    for _attempt in range(2):
        row = token_row_of_account(account)
        if row is None or row.updated_at > event.created_at:
            return  # the tokens were requested after the event, so they work
        try:
            if not access.renew(account):
                return  # it is unknown whether they have ended; the next AI call shows it
        except NotConnected:
            return
        except ReauthenticationRequired:
            connecting.wipe_tokens(user, grant=row.grant)
            return
        # This may have been the renewal of another process, requested before the event. A second
        # one is requested after it, whatever the two clocks say.


_HANDLERS: dict[str, Callable[[WebhookEvent, Any], None]] = {
    "balance.updated": _balance_updated,
    "balance.low": _balance_low,
    "user.disconnected": _user_disconnected,
}
