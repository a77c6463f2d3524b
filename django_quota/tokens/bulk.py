"""Renew many tokens, one after another, in any number of processes.

`refresh_expiring` is a plain function for `manage.py quota_refresh_tokens`, Celery and Django
Tasks. This module chooses the next token, limits the rate and decides when to stop; `renewal`
renews one token.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from typing import TypeVar

from django.db import router
from django.db.models import Q, QuerySet

from django_quota.exceptions import (
    ConfigurationError,
    NotConnected,
    ProviderUnavailable,
    RateLimited,
    ReauthenticationRequired,
    RefreshImpossibleHere,
    TokenUnreadable,
)
from django_quota.models import QuotaToken

from . import access, locking
from .clock import PRECISION, Clock
from .leases import Lease
from .single_flight import OwnThread, in_transaction

__all__ = ["refresh_expiring"]

T = TypeVar("T")

logger = logging.getLogger("django_quota.bulk")

#: This many failures in a row count as an outage: each may have taken QUOTA_DEADLINE seconds.
OUTAGE = 5
#: How often a run waits for one token, if Quota says to wait.
WAITS = 4
#: Seconds to wait if Quota limits the rate and does not say how long.
PAUSE = 5
#: The most seconds that a run waits. A longer wait is left to the next run.
LONGEST_PAUSE = 60


@dataclass(frozen=True, kw_only=True)
class Refreshed:
    """The result of one run of `refresh_expiring`, in tokens of this process."""

    renewed: int
    #: Quota has ended these connections, and the users must sign in again. This is normal.
    needs_sign_in: int
    #: No key of FIELD_ENCRYPTION_KEY decrypts these. They were neither sent nor overwritten.
    unreadable: int
    #: Kept, and tried again by the next run.
    failed: int
    #: Why the run ended early, "" if it did not.
    stopped: str
    #: True if it ended early because of a setting. The next run would end in the same way.
    misconfigured: bool = False

    @property
    def ok(self) -> bool:
        """True if nothing failed."""
        return not (self.unreadable or self.failed or self.stopped)

    @property
    def passes(self) -> bool:
        """True if the next run may succeed; False if an operator must act."""
        return not (self.unreadable or self.misconfigured)


def refresh_expiring(
    within: timedelta,
    *,
    rate: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Refreshed:
    """Renew every token that expires `within` that time, unless another worker renews it.

    Any number of processes and hosts share the work: each takes the next free token, with a lease.
    If a token cannot be renewed, the run goes on with the next one; if all would fail, it ends.
    `rate` is the most renewals a second of this process. `progress` is called after each token with
    the number of tokens that this process has done and the number that were due at the start.

    Raises ValueError if `rate` is not above 0, RefreshImpossibleHere in a transaction.
    """
    if rate is not None and not rate > 0:
        raise ValueError("rate is a number of renewals a second, above 0.")
    alias = router.db_for_write(QuotaToken)
    if in_transaction(alias):
        raise RefreshImpossibleHere(
            "refresh_expiring commits after each token; call it outside of any transaction."
        )
    count: Counter[str] = Counter()
    stopped, misconfigured = "", False
    try:
        clock = _ask(lambda: Clock.of(alias), alias)
        due = _due(clock.now(), within)
        total = due.count() if progress else 0
        with OwnThread() as thread:
            outcomes = _outcomes(due, clock, 1 / rate if rate else 0, thread)
            for done, outcome in enumerate(outcomes, start=1):
                count[outcome] += 1
                if progress:
                    progress(done, total)
    except (ConfigurationError, ProviderUnavailable) as error:
        stopped, misconfigured = str(error), isinstance(error, ConfigurationError)
        count["failed"] += 1
    return Refreshed(
        renewed=count["renewed"],
        needs_sign_in=count["needs sign-in"],
        unreadable=count["unreadable"],
        failed=count["failed"],
        stopped=stopped,
        misconfigured=misconfigured,
    )


def _due(started: datetime, within: timedelta) -> QuerySet[QuotaToken]:
    return QuotaToken.objects.with_identity().filter(
        status=QuotaToken.Status.ACTIVE,
        expires_at__lte=started + within,
        updated_at__lt=started,  # else a token with a lifetime below `within` is due for ever
    )


def _outcomes(
    due: QuerySet[QuotaToken], clock: Clock, interval: float, thread: OwnThread
) -> Iterator[str]:
    """Renew each token that is due, and yield the outcome. Raises an error that concerns all."""
    in_a_row, started = 0, clock.now()
    # Tokens that have failed before come last, the oldest failure first. So tokens that always fail
    # do not keep the others waiting.
    for row in chain(
        _one_by_one(due.filter(last_failure_at=None), "expires_at", clock),
        _one_by_one(due.filter(last_failure_at__lt=started), "last_failure_at", clock),
    ):
        began = time.monotonic()
        outcome = "renewed"
        try:
            if not _renew(row, clock, started, thread):
                outcome = "taken"
        except NotConnected:
            outcome = "taken"  # the user has disconnected just now
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


def _one_by_one(rows: QuerySet[QuotaToken], by: str, clock: Clock) -> Iterator[QuotaToken]:
    """Yield the rows in the order of the column `by`.

    Each row is looked up when it is needed, which leaves out rows that others have renewed or are
    renewing by then.
    """
    after = Q()
    while True:
        free = _free(rows, clock.now()).filter(after).order_by(by, "pk")
        row = _ask(free.first, rows.db)
        if row is None:
            return
        yield row
        value = getattr(row, by)
        # The first condition follows from the second, but lets the database use the index.
        after = Q((f"{by}__gte", value)) & (Q((f"{by}__gt", value)) | Q(pk__gt=row.pk))


def _ask(question: Callable[[], T], alias: str) -> T:
    """Return the database's answer. Waits while the database restarts."""
    try:
        return locking.retry(question, LONGEST_PAUSE, alias=alias)
    except locking.REFUSALS as error:
        # On some databases, a column that `migrate` has not added yet raises one of these too.
        logger.warning("the database did not give the next token: %s", error)
        raise ProviderUnavailable(
            "The database is away; run it again.", request_sent=False
        ) from error


def _free(rows: QuerySet[QuotaToken], now: datetime) -> QuerySet[QuotaToken]:
    """Leave out rows that are being renewed.

    Otherwise each of four processes would lock the rows of the other three before it finds one.
    """
    return rows.exclude(Lease.held("lease_until", now, saving=True))


def _renew(row: QuotaToken, clock: Clock, since: datetime, thread: OwnThread) -> bool:
    """Call `renew_unless_taken`, and again after a wait if Quota says so (RFC 6585 section 4)."""
    for _attempt in range(WAITS):
        try:
            return _renew_once(row, since, thread)
        except RateLimited as error:
            pause = PAUSE if error.retry_after is None else error.retry_after
            if pause > LONGEST_PAUSE:
                raise
            time.sleep(pause)
            # `clock` may be late, so the failure just saved could seem to be another worker's.
            since = clock.now() + timedelta(seconds=PRECISION)
    return _renew_once(row, since, thread)


def _renew_once(row: QuotaToken, since: datetime, thread: OwnThread) -> bool:
    return access.renew_unless_taken(row, since=since, patience=LONGEST_PAUSE, thread=thread)
