"""The signals that projects can receive. No signal carries a token."""

from django.dispatch import Signal

__all__ = [
    "account_linked",
    "balance_low",
    "credits_granted",
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
#: (str, shown on the person's page and in the log).
sign_in_failed = Signal()
#: A first sign-in was linked to an existing user, by QUOTA_LINK_BY_EMAIL or by
#: `filter_users_by_claims` of your own backend. The user's password became unusable, which ends
#: Django's sessions. It does not end API keys, tokens, passkeys and other logins: end them in a
#: receiver. The signal is sent in the transaction of the link, and a receiver that raises an
#: exception rolls it back. Arguments: user, account.
account_linked = Signal()
#: A wallet was connected to a user who was signed in already. Arguments: user, account.
wallet_connected = Signal()
#: A user's wallet was disconnected, and its tokens were deleted. Arguments: user.
wallet_disconnected = Signal()
#: The cost of an AI call was recorded. Arguments: user, usage (what `record_usage` returns),
#: complete (bool, True if the whole answer arrived).
usage_recorded = Signal()
#: `grant_credits` has credited a user; sent once for each grant. Arguments: user, grant
#: (wallet.Grant).
credits_granted = Signal()
#: A balance has fallen below QUOTA_LOW_BALANCE, or below the threshold that Quota watches. It is
#: sent once for each fall below each of the two. Arguments: user, balance (wallet.Balance),
#: threshold (int, credits).
balance_low = Signal()
#: Quota has delivered an event, which is stored and committed already. If a receiver raises an
#: exception, Quota delivers the event again, to all receivers. Arguments: event
#: (models.WebhookEvent), user (or None).
webhook_received = Signal()
