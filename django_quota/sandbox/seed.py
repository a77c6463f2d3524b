"""The demo users and the other rows that a new database needs."""

from __future__ import annotations

from django.db import transaction

from . import ledger
from .models import SigningKey, User

__all__ = ["DEMO_PASSWORD", "DEMO_USERS", "seed"]

DEMO_PASSWORD = "quota-demo"  # noqa: S105  # printed on the sign-in page
#: E-mail address, name and credits of each user.
DEMO_USERS = [
    ("ada@example.com", "Ada Lovelace", 1_000_000),
    ("grace@example.com", "Grace Hopper", 25_000_000),
    ("bob@example.com", "Bob Broke", 0),
]


def seed() -> None:
    """Create the rows that are missing, and release old reservations."""
    SigningKey.current()
    ledger.release_reservations()
    for email, name, credits in DEMO_USERS:
        if User.objects.filter(email=email).exists():
            continue
        with transaction.atomic():
            user = User.objects.add(email, DEMO_PASSWORD, name=name, email_verified=True)
            ledger.set_balance(user, credits, "Demo credits")
