"""What a project may listen to. No signal carries a token."""

from django.dispatch import Signal

__all__ = [
    "balance_low",
    "sign_in_failed",
    "signed_in",
    "usage_recorded",
    "wallet_connected",
    "wallet_disconnected",
    "webhook_received",
]

#: A sign-in with Quota succeeded. Arguments: request, user, account.
signed_in = Signal()
#: A sign-in with Quota failed. Arguments: request, code (str), reason (str, for the log), reference
#: (str: on the person's page and in the log).
sign_in_failed = Signal()
#: A wallet was connected to a user who was signed in already. Arguments: user, account.
wallet_connected = Signal()
#: A user's wallet was disconnected, its tokens wiped. Arguments: user.
wallet_disconnected = Signal()
#: What an AI call cost was recorded. Arguments: user, usage (usage.Usage), complete (bool: did the
#: answer arrive to its end?).
usage_recorded = Signal()
#: A balance has fallen below QUOTA_LOW_BALANCE, or below the threshold that Quota watches. Each of
#: the two says so once a fall. Arguments: user, balance (wallet.Balance), threshold (int, credits).
balance_low = Signal()
#: Quota has delivered an event, after it was stored and committed. A receiver that raises makes
#: Quota deliver it again, to all receivers. Arguments: event (models.WebhookEvent), user (or None).
webhook_received = Signal()
