"""Accounts, tokens and records in Django's admin. No page shows a secret."""

from .rows import (
    CreditGrantAdmin,
    ProviderAccountAdmin,
    QuotaTokenAdmin,
    UsageRecordAdmin,
    WebhookEventAdmin,
)

__all__ = [
    "CreditGrantAdmin",
    "ProviderAccountAdmin",
    "QuotaTokenAdmin",
    "UsageRecordAdmin",
    "WebhookEventAdmin",
]
