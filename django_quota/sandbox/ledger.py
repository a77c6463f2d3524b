"""Functions that change balances and reservations. No other module changes them."""

from __future__ import annotations

import uuid

from django.db import transaction
from django.db.models import F

from .models import Application, LedgerEntry, User

__all__ = ["add_purchase", "grant", "release_reservations", "reserve", "set_balance", "settle"]


def _change_balance(
    user: User,
    amount: int,
    kind: LedgerEntry.Kind,
    description: str = "",
    application: Application | None = None,
) -> LedgerEntry:
    """Add an amount to the balance and record it. Call it inside a transaction."""
    User.objects.filter(pk=user.pk).update(balance=F("balance") + amount)
    user.refresh_from_db(fields=["balance"])
    return LedgerEntry.objects.create(
        user=user,
        application=application,
        kind=kind,
        amount=amount,
        balance_after=user.balance,
        description=description[:200],
    )


def set_balance(user: User, balance: int, description: str = "") -> None:
    """Set the balance in credits, and record the difference."""
    with transaction.atomic():
        user.refresh_from_db(fields=["balance"])
        if difference := balance - user.balance:
            _change_balance(user, difference, LedgerEntry.Kind.ADJUSTMENT, description)


def add_purchase(user: User, amount: int, description: str, application: Application) -> int:
    """Add purchased credits and return the new balance."""
    with transaction.atomic():
        kind = LedgerEntry.Kind.PURCHASE
        return _change_balance(user, amount, kind, description, application).balance_after


def grant(developer: User, user: User, amount: int, description: str) -> LedgerEntry | None:
    """Move credits from a developer's wallet to a user's, and return the user's entry.

    Returns None if the developer's wallet does not have them.
    """
    with transaction.atomic():
        developer.refresh_from_db(fields=["balance", "reserved"])
        if developer.balance - developer.reserved < amount:
            return None
        _change_balance(developer, -amount, LedgerEntry.Kind.GRANT, description)
        return _change_balance(user, amount, LedgerEntry.Kind.GRANT, description)


def reserve(user_id: uuid.UUID, amount: int) -> bool:
    """Reserve credits for a call; return False if the wallet does not have them.

    A single UPDATE checks and reserves, so two calls cannot reserve the same credits.
    """
    return bool(
        User.objects.filter(pk=user_id, balance__gte=F("reserved") + amount).update(
            reserved=F("reserved") + amount
        )
    )


def settle(
    user_id: uuid.UUID, reserved: int, cost: int, description: str, application: Application
) -> tuple[int, int]:
    """Replace a reservation by a charge; return the balance before and after, in credits."""
    with transaction.atomic():
        User.objects.filter(pk=user_id).update(reserved=F("reserved") - reserved)
        user = User.objects.get(pk=user_id)
        entry = _change_balance(user, -cost, LedgerEntry.Kind.CHARGE, description, application)
        after = entry.balance_after
    return after + cost, after


def release_reservations() -> None:
    """Remove reservations that an earlier process left behind when it stopped."""
    User.objects.exclude(reserved=0).update(reserved=0)
