"""A user's wallet: its balance, the purchase of credits, and the record of what was spent."""

from django_quota.oidc.wallet_api import Package

from .attribution import billed_for
from .balances import Balance
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
    "Package",
    "acreate_checkout",
    "aget_balance",
    "aget_packages",
    "arecord_usage",
    "billed_for",
    "create_checkout",
    "get_balance",
    "get_packages",
    "record_usage",
]
