"""A user's wallet: its balance, the purchase and the gift of credits, and what was spent."""

from django_quota.oidc.wallet_api import Package

from .attribution import billed_for
from .balances import Balance
from .grants import Grant, agrant_credits, grant_credits
from .limits import spending_limit
from .purchases import (
    acreate_checkout,
    aget_balance,
    aget_packages,
    create_checkout,
    get_balance,
    get_packages,
)
from .usage import arecord_usage, record_usage

__all__ = [
    "Balance",
    "Grant",
    "Package",
    "acreate_checkout",
    "aget_balance",
    "aget_packages",
    "agrant_credits",
    "arecord_usage",
    "billed_for",
    "create_checkout",
    "get_balance",
    "get_packages",
    "grant_credits",
    "record_usage",
    "spending_limit",
]
