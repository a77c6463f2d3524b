"""What a project may listen to. No signal carries a token."""

from django.dispatch import Signal

__all__ = ["sign_in_failed", "signed_in", "wallet_connected", "wallet_disconnected"]

#: A sign-in with Quota succeeded. Arguments: request, user, account.
signed_in = Signal()
#: A sign-in with Quota failed. Arguments: request, code (str), reason (str, for the log), reference
#: (str: on the person's page and in the log).
sign_in_failed = Signal()
#: A wallet was connected to a user who was signed in already. Arguments: user, account.
wallet_connected = Signal()
#: A user's wallet was disconnected, its tokens wiped. Arguments: user.
wallet_disconnected = Signal()
