"""The package's models. Nothing here calls Quota, and no `repr` or `str` shows a secret."""

from .account import PROVIDER, ProviderAccount, require_user
from .records import CreditGrant, UsageRecord, WebhookEvent
from .token import (
    REVOCATION_PERIOD,
    PendingRevocation,
    QuotaToken,
    end_of_revocation,
    of_same_account,
)

__all__ = [
    "PROVIDER",
    "REVOCATION_PERIOD",
    "CreditGrant",
    "PendingRevocation",
    "ProviderAccount",
    "QuotaToken",
    "UsageRecord",
    "WebhookEvent",
    "end_of_revocation",
    "of_same_account",
    "require_user",
]
