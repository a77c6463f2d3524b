"""Accounts, tokens and records in Django's admin. No page shows a secret."""

from .records import CreditGrantAdmin, UsageRecordAdmin, WebhookEventAdmin
from .rows import ProviderAccountAdmin, QuotaTokenAdmin

__all__ = [
    "CreditGrantAdmin",
    "ProviderAccountAdmin",
    "QuotaTokenAdmin",
    "UsageRecordAdmin",
    "WebhookEventAdmin",
]
