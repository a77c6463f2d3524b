"""The only place where credits move. Every function is one short transaction."""

from __future__ import annotations

import uuid

from django.db import transaction
from django.db.models import F

from .models import Application, LedgerEntry, User

__all__ = ["adjust", "credit", "release_all", "reserve", "settle"]


def _move(
    user: User,
    amount: int,
    kind: LedgerEntry.Kind,
    description: str = "",
    application: Application | None = None,
) -> int:
    """Write one entry and the new balance; the caller holds the transaction."""
    User.objects.filter(pk=user.pk).update(balance=F("balance") + amount)
    user.refresh_from_db(fields=["balance"])
    LedgerEntry.objects.create(
        user=user,
        application=application,
        kind=kind,
        amount=amount,
        balance_after=user.balance,
        description=description[:200],
    )
    return user.balance


def adjust(user: User, balance: int, description: str = "") -> None:
    """Set a balance, in credits, by a movement of the difference."""
    with transaction.atomic():
        user.refresh_from_db(fields=["balance"])
        if difference := balance - user.balance:
            _move(user, difference, LedgerEntry.Kind.ADJUSTMENT, description)


def credit(user: User, amount: int, description: str, application: Application) -> int:
    """Add bought credits; return the new balance. Joins the caller's transaction."""
    with transaction.atomic():
        return _move(user, amount, LedgerEntry.Kind.PURCHASE, description, application)


def reserve(user_id: uuid.UUID, amount: int) -> bool:
    """Hold back ``amount`` credits for a call; False if they are not there.

    One UPDATE that compares and writes, so two calls cannot hold back the same credits.
    """
    return bool(
        User.objects.filter(pk=user_id, balance__gte=F("reserved") + amount).update(
            reserved=F("reserved") + amount
        )
    )


def settle(
    user_id: uuid.UUID, reserved: int, cost: int, description: str, application: Application
) -> tuple[int, int]:
    """End a reservation and charge what the call really cost.

    Returns the balance before and after, in credits.
    """
    with transaction.atomic():
        User.objects.filter(pk=user_id).update(reserved=F("reserved") - reserved)
        user = User.objects.get(pk=user_id)
        after = _move(user, -cost, LedgerEntry.Kind.CHARGE, description, application)
    return after + cost, after


def release_all() -> None:
    """Drop the reservations of calls that died with an earlier process."""
    User.objects.exclude(reserved=0).update(reserved=0)
