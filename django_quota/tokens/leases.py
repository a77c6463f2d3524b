"""Leases, which give one worker at a time the right to renew a row.

A worker that renews a token writes its id and an end time into the row, and other workers leave the
row alone until then. The lease ends, because its owner may be killed. But an owner may also have
Quota's answer and be unable to save it, because the database is away or the row is locked. Its
refresh token is spent, and must not be sent again. So the first worker that locks the row after the
end gives the owner a grace period, and takes over only after that.

::

    free --> held --> ended --> grace --> over: as good as free

The state is stored in the row, and all times are by the database's clock.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from django.db.models import Q

from django_quota.conf import get_settings
from django_quota.models import QuotaToken

#: Seconds of a lease beyond QUOTA_DEADLINE: its owner saves after the call.
MARGIN = 5
#: Seconds for which a save is repeated: until then, Quota's answer exists in memory only.
SAVE_PATIENCE = 60
#: Seconds for which an owner whose lease has ended may still save.
GRACE = 2
#: If locking the row took more seconds, another worker had the lock and the owner could not save
#: either: the grace begins again.
WAITED = 0.1
#: The least number of seconds that a lease may end ahead, whatever QUOTA_DEADLINE is here: during a
#: deployment, other hosts may use a longer one. A lease that ends later was written before the
#: database's clock was set back.
FARTHEST = 120


class Phase(Enum):
    """What a lease means for a worker that wants to renew the row."""

    #: There is no lease, it is the worker's own, or its owner did not save in time.
    FREE = "free"
    HELD = "held"
    #: The owner may still be saving. The next worker that locks the row begins the grace.
    ENDED = "ended"


@dataclass(frozen=True)
class Lease:
    """The lease in a row, as it was read."""

    owner: str
    until: datetime | None
    in_grace: bool = False

    @classmethod
    def of(cls, row: QuotaToken) -> "Lease":
        """Return the lease in `row`."""
        return cls(row.lease_owner, row.lease_until, row.lease_in_grace)

    def phase(self, me: str, now: datetime, *, waited: float = 0) -> Phase:
        """Return the phase for the worker `me`, whose lock of the row took `waited` seconds.

        `me` may own the lease without knowing it, if the confirmation of the commit was lost.
        """
        if self.until is None or self.owner == me or self.until > now + _farthest():
            return Phase.FREE
        if self.until > now:
            return Phase.HELD
        if self.until <= now - timedelta(seconds=SAVE_PATIENCE):
            return Phase.FREE
        return Phase.FREE if self.in_grace and waited < WAITED else Phase.ENDED

    def write(self, row: QuotaToken) -> list[str]:
        """Set the lease in a locked row, which the caller saves. Returns the column names."""
        row.lease_owner, row.lease_until, row.lease_in_grace = self.owner, self.until, self.in_grace
        return ["lease_owner", "lease_until", "lease_in_grace"]

    @classmethod
    def taken(cls, me: str, now: datetime) -> "Lease":
        """Return a new lease of `me`, long enough for the call and the save."""
        return cls(me, now + _length())

    def with_grace(self, now: datetime) -> "Lease":
        """Return this lease with GRACE seconds for its owner to save."""
        return Lease(self.owner, now + timedelta(seconds=GRACE), in_grace=True)

    @staticmethod
    def held(column: str, now: datetime, *, saving: bool = False) -> Q:
        """Return a condition for rows with a lease, which ends at the time in `column`.

        With `saving`, it includes leases that ended so recently that the owner may still be saving.
        """
        since = now - timedelta(seconds=SAVE_PATIENCE if saving else 0)
        return Q((f"{column}__gt", since), (f"{column}__lte", now + _farthest()))


NONE = Lease("", None)


def has_time_to_call(row: QuotaToken) -> bool:
    """Return True if our lease lasts longer than the call to Quota may take.

    The commit of the lease may have been slow.
    """
    deadline = timedelta(seconds=get_settings().deadline)
    return row.lease_until is not None and row.lease_until > row.clock.now() + deadline


def wait_time() -> float:
    """Return the seconds to wait for the owner of a lease, and to replace one that was killed."""
    return get_settings().deadline + MARGIN + GRACE + 1


def longest() -> float:
    """Return the longest time of a renewal in seconds: a wait for an owner, then our own lease."""
    return wait_time() + get_settings().deadline + MARGIN


def _length() -> timedelta:
    return timedelta(seconds=get_settings().deadline + MARGIN)


def _farthest() -> timedelta:
    return max(timedelta(seconds=FARTHEST), 2 * _length())
