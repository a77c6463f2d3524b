"""Leases: whose turn it is to renew a token.

Whoever renews writes into the row who they are and until when; the others leave the row to them.
The owner of a lease may be killed, so it ends. They may also have Quota's answer in hand and be
kept from saving it, by a database that is away or a row that others have locked: the refresh token
they have spent must not be spent again, so after an ended lease they still come first.
"""

import time
from datetime import datetime, timedelta

from django.utils import timezone

from . import locking
from .conf import get_settings
from .models import ProviderAccount, QuotaToken

__all__ = [
    "SAVE_PATIENCE",
    "LateOwner",
    "bounds",
    "is_taken",
    "leaves_time",
    "longest",
    "take",
    "wait_time",
]

#: Seconds that a lease outlives QUOTA_DEADLINE: the save of its owner comes after the call.
MARGIN = 5
#: Seconds to go on trying to save: what Quota has answered exists nowhere else.
SAVE_PATIENCE = 60
#: Seconds ahead of us that a lease may end. Its owner's clock may be ahead of ours, or their
#: QUOTA_DEADLINE longer than ours while a new one is deployed: so it does not depend on ours.
FARTHEST = 120
#: Seconds for which whoever waits leaves the row to an owner whose lease has ended. They may be as
#: long behind the others in noticing that the database is back, or the row no longer locked.
OWNER_FIRST = 2
#: Seconds that two looks of whoever waits may be late: at the end of a lease, and of OWNER_FIRST.
LOOKS = 2 * locking.POLL[1]
#: A lock that took more seconds to get was somebody else's until now: SQLite waits for it.
QUICK = 0.5


def take(row: QuotaToken, owner: str) -> None:
    """Write the lease of `owner` into a row that is locked."""
    # The account now, for the check of the reply: while the row is locked it cannot go. And from
    # here, as a router would send `row.account` to a replica that may not have it yet.
    row.account = ProviderAccount.objects.using(row._state.db).get(pk=row.account_id)
    row.lease_owner = owner
    row.lease_until = timezone.now() + _length()
    row.save(update_fields=["lease_owner", "lease_until"])  # the secrets are not encrypted anew


def leaves_time(row: QuotaToken) -> bool:
    """Is there time for the call left on our lease, or did the database take it to commit?"""
    return row.lease_until is not None and row.lease_until > timezone.now() + _call()


def is_taken(row: QuotaToken) -> bool:
    """Does somebody renew it, or may they still be saving it?"""
    begin, end = bounds()
    return row.lease_until is not None and begin < row.lease_until <= end


def bounds() -> tuple[datetime, datetime]:
    """Between which moments the lease of a row that is taken ends.

    After its end its owner may still be saving, for SAVE_PATIENCE. One that ends later than
    FARTHEST from now is of a clock that has been set back since.
    """
    now = timezone.now()
    farthest = max(timedelta(seconds=FARTHEST), 2 * _length())
    return now - timedelta(seconds=SAVE_PATIENCE), now + farthest


def wait_time() -> float:
    """Seconds to wait for an owner, and to replace them if they do not come back."""
    return get_settings().deadline + MARGIN + OWNER_FIRST + LOOKS


def longest() -> float:
    """Seconds that a renewal takes at most: the wait for another owner, then a lease of our own."""
    return wait_time() + get_settings().deadline + MARGIN


def _call() -> timedelta:
    return timedelta(seconds=get_settings().deadline)


def _length() -> timedelta:
    return _call() + timedelta(seconds=MARGIN)


class LateOwner:
    """The owner of an ended lease, as `me` sees them who would take over.

    Only a lock that was obtained shows that the row was to be had. A look without one shows
    nothing: whoever counted from there would take the row at the instant that others release it,
    while its owner sleeps until their next attempt.
    """

    def __init__(self, me: str) -> None:
        self._me, self._owner, self._since, self._asked = me, "", 0.0, 0.0

    def had_no_chance(self) -> None:
        """We could not have the row just now; nor could they."""
        self._owner = ""

    def worth_a_lock(self, row: QuotaToken) -> bool:
        """Seen without the lock: could `is_gone` say something new of it?"""
        self._asked = time.monotonic()
        if row.lease_owner == self._me:
            return True
        return _has_ended(row) and (row.lease_owner != self._owner or self._is_over())

    def is_gone(self, row: QuotaToken) -> bool:
        """Of a row that is locked: has it been to be had for OWNER_FIRST seconds?"""
        if row.lease_owner == self._me:  # we made no call with it: see leaves_time
            return True
        if not _has_ended(row):
            return False
        waited = time.monotonic() - self._asked > QUICK
        if waited or row.lease_owner != self._owner:
            self._owner, self._since = row.lease_owner, time.monotonic()
        return self._is_over()

    def _is_over(self) -> bool:
        return time.monotonic() > self._since + OWNER_FIRST


def _has_ended(row: QuotaToken) -> bool:
    return row.lease_until is not None and row.lease_until <= timezone.now()
