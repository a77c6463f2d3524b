"""Renewing many tokens: one at a time, by as many processes as you like.

A plain function, called alike by `manage.py quota_refresh_tokens`, Celery and Django Tasks. How one
token is renewed is in `django_quota.tokens`; here is which comes next, how fast, and when to stop.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain

from django.db import OperationalError
from django.db.models import Q
from django.utils import timezone
from tqdm import tqdm

from . import leases, locking, tokens
from .exceptions import (
    ConfigurationError,
    NotConnected,
    ProviderUnavailable,
    RateLimited,
    ReauthenticationRequired,
    RefreshImpossibleHere,
    TokenUnreadable,
)
from .models import QuotaToken, QuotaTokenQuerySet

__all__ = ["Refreshed", "refresh_expiring"]

logger = logging.getLogger("django_quota.bulk")

#: So many failures in a row are an outage: each may have taken QUOTA_DEADLINE seconds.
OUTAGE = 5
#: Times that a run does as Quota says for one token, when it says to wait.
WAITS = 4
#: Seconds to wait where Quota limits our rate and does not say how long; and the most that a run
#: waits when it does. Anything longer is for the next run.
PAUSE, LONGEST_PAUSE = 5, 60


@dataclass(frozen=True, kw_only=True)
class Refreshed:
    """What one run of `refresh_expiring` did, in tokens. Other processes count their own."""

    renewed: int
    #: Quota has ended these connections: the users sign in again. In the course of things.
    needs_sign_in: int
    #: No key of FIELD_ENCRYPTION_KEY fits: neither sent nor overwritten.
    unreadable: int
    #: Kept, and tried again by the next run.
    failed: int
    #: Why the run ended early, "" if it did not.
    stopped: str

    @property
    def ok(self) -> bool:
        """Is there nothing that an operator should look at?"""
        return not (self.unreadable or self.failed or self.stopped)


def refresh_expiring(
    within: timedelta, *, rate: float | None = None, progress: bool = False
) -> Refreshed:
    """Renew every token that expires `within` that time and that nobody else renews.

    Any number of processes and hosts share the work: each takes the next token that is free, with
    the lease that a page would take. A token that cannot be renewed is left behind and the others
    go on; where that would be the fate of all, the run ends. `rate` is the most renewals a second
    of this process; `progress` shows a bar if stderr is a terminal.

    Raises ValueError for a rate that is not above 0, RefreshImpossibleHere in a transaction.
    """
    if rate is not None and not rate > 0:
        raise ValueError("rate is a number of renewals a second, above 0.")
    if locking.in_transaction():
        raise RefreshImpossibleHere(
            "refresh_expiring commits each token by itself; call it outside of any transaction."
        )
    started = timezone.now()
    due = _due(started, within)
    count: Counter[str] = Counter()
    stopped = ""
    # None: only on a terminal.
    with tqdm(
        total=due.count() if progress else None,
        unit="token",
        disable=None if progress else True,
    ) as bar:
        try:
            for outcome in _outcomes(due, started, 1 / rate if rate else 0):
                count[outcome] += 1
                bar.update()
        except (ConfigurationError, ProviderUnavailable) as error:
            stopped = str(error)
            count["failed"] += 1
    return Refreshed(
        renewed=count["renewed"],
        needs_sign_in=count["needs sign-in"],
        unreadable=count["unreadable"],
        failed=count["failed"],
        stopped=stopped,
    )


def _due(started: datetime, within: timedelta) -> QuotaTokenQuerySet:
    rows: QuotaTokenQuerySet = QuotaToken.objects.filter(
        status=QuotaToken.Status.ACTIVE,
        expires_at__lte=started + within,
        updated_at__lt=started,  # else a token that lives shorter than `within` is due for ever
    )
    return rows


def _outcomes(due: QuotaTokenQuerySet, started: datetime, interval: float) -> Iterator[str]:
    """What becomes of each token that is due. Raises what would become of all the rest."""
    in_a_row = 0
    # Those that have failed before come last, and the one that has waited longest first among
    # them: however many always fail, they keep no other from its turn.
    for row in chain(
        _one_by_one(due.filter(last_failure_at=None), "expires_at"),
        _one_by_one(due.filter(last_failure_at__lt=started), "last_failure_at"),
    ):
        began = time.monotonic()
        outcome = "renewed"
        try:
            if not _renew(row, started):
                outcome = "taken"
        except NotConnected:
            outcome = "taken"  # by its owner, who has just disconnected
        except ReauthenticationRequired:
            outcome = "needs sign-in"
        except TokenUnreadable:
            outcome = "unreadable"
        except RateLimited:
            raise
        except ProviderUnavailable:
            outcome = "failed"
            in_a_row += 1
            if in_a_row == OUTAGE:
                raise
        if outcome in ("renewed", "needs sign-in"):  # Quota has answered
            in_a_row = 0
        yield outcome
        if outcome != "taken":
            time.sleep(max(0.0, began + interval - time.monotonic()))


def _one_by_one(rows: QuotaTokenQuerySet, by: str) -> Iterator[QuotaToken]:
    """The rows in the order of that column, each looked up when its turn has come, so that what
    others have done by then, or are doing, is left out. No secret is loaded."""
    after = Q()
    while (row := _next(_free(rows).filter(after).order_by(by, "pk"))) is not None:
        yield row
        value = getattr(row, by)
        # The first condition says no more than the second, but an index can begin there.
        after = Q((f"{by}__gte", value)) & (Q((f"{by}__gt", value)) | Q(pk__gt=row.pk))


def _next(rows: QuotaTokenQuerySet) -> QuotaToken | None:
    """The first of them, if need be after a restart of the database, which is waited for."""
    try:
        return locking.patiently(rows.first, LONGEST_PAUSE)
    except OperationalError as error:
        # On some databases a column that `migrate` has yet to add is one, too.
        logger.warning("the database did not give the next token: %s", error)
        raise ProviderUnavailable(
            "The database is away; run it again.", request_sent=False
        ) from error


def _free(rows: QuotaTokenQuerySet) -> QuotaTokenQuerySet:
    """Without those that somebody is renewing: of four processes, each would lock the rows of the
    three others before it came upon one for itself."""
    begin, end = leases.bounds()
    return rows.exclude(lease_until__gt=begin, lease_until__lte=end)


def _renew(row: QuotaToken, since: datetime) -> bool:
    """`tokens.renew_unless_taken`, again when Quota has told us to wait (RFC 6585 section 4)."""
    for _attempt in range(WAITS):
        try:
            return tokens.renew_unless_taken(row, since=since, patience=LONGEST_PAUSE)
        except RateLimited as error:
            pause = PAUSE if error.retry_after is None else error.retry_after
            if pause > LONGEST_PAUSE:
                raise
            time.sleep(pause)
            since = timezone.now()
    return tokens.renew_unless_taken(row, since=since, patience=LONGEST_PAUSE)
