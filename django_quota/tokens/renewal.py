"""One renewal of one token, in four steps:

1. Look: read the row without a lock, and decide.
2. Claim: lock the row in a short transaction, decide again, and write a lease.
3. Call Quota, without a lock and without a transaction.
4. Save the reply, in a second short transaction.

Any number of threads, processes and hosts make one call together, and a rotating refresh token is
used once. docs/model.rst shows the states.
"""

import logging
import secrets
import time
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from django.db import Error

from django_quota.exceptions import (
    ConfigurationError,
    ProviderUnavailable,
    QuotaError,
    ReauthenticationRequired,
    RefreshRefused,
    TokenUnreadable,
)
from django_quota.models import QuotaToken
from django_quota.oidc import endpoints

from . import leases, locking, revocation
from .decisions import (
    Decision,
    GoOnWith,
    Renew,
    Wait,
    decide,
    failed_since,
    failure,
    refusal,
    refused_since,
    valid_token,
)
from .issued import Issued
from .leases import Lease, Phase
from .lookup import token_row_again
from .replies import checked_reply
from .storing import disconnected, write, write_successor

T = TypeVar("T")

logger = logging.getLogger("django_quota.tokens")


class Renewal:
    """One attempt to renew the token `seen`, which has expired or was `rejected` by Quota.

    It runs where its caller's transaction and cancellation do not reach it: see `single_flight`.
    """

    def __init__(self, seen: QuotaToken, rejected: str | None, *, since: datetime) -> None:
        self.seen, self.rejected, self.since = seen, rejected, since
        self.alias = locking.database(seen)
        self.me = secrets.token_hex(16)
        #: The row as it was when this renewal took the lease.
        self.claimed = seen

    def run(self) -> str:
        """Return the token to use, after waiting for another owner of the lease if necessary.

        Raises what `get_access_token` raises.
        """
        for _look in locking.pauses(leases.wait_time()):
            decision = self.look()
            if decision in (Renew(), Wait(begin_grace=True)):
                decision = self._claim_or_wait(decision)
            if isinstance(decision, GoOnWith):
                return decision.token
            if isinstance(decision, Renew) and leases.has_time_to_call(self.claimed):
                return self.call_and_save()
        raise ProviderUnavailable("Another worker's renewal has not ended; try again soon.")

    def run_unless_taken(self, patience: float) -> bool:
        """Renew the row unless another worker holds it or has written it. For bulk work.

        It does not wait for other workers, but for `patience` seconds for a database that is away.
        """
        try:
            mine = locking.under_lock(self.claim_unless_taken, self.alias, patience)
        except TokenUnreadable as error:
            self._note(error)
            raise
        if not mine:
            return False
        if not leases.has_time_to_call(self.claimed):
            raise ProviderUnavailable(
                "The database took too long to commit the lease; try again later.",
                request_sent=False,
            )
        self.call_and_save()
        return True

    def look(self) -> Decision:
        """Decide without the lock: workers that wait must not queue for it or, on SQLite, write."""
        return self._decide(token_row_again(self.seen))

    def _decide(self, row: QuotaToken | None, waited: float = 0) -> Decision:
        if row is None:
            raise disconnected()
        return decide(
            row,
            me=self.me,
            rejected=self.rejected,
            since=self.since,
            now=row.clock.now(),
            waited=waited,
        )

    def _claim_or_wait(self, looked: Decision) -> Decision:
        try:
            return locking.under_lock(self.claim, self.alias)
        except locking.RowLocked:
            if isinstance(looked, Wait):
                return looked  # the late owner may hold the lock and be saving
            raise

    def claim(self) -> Decision:
        """Decide again under the lock, and write our lease, or the owner's grace."""
        with locking.locked(self.seen) as row:
            if row is None:
                raise disconnected()
            decision = self._decide(row, row.lock_waited)
            if decision == Renew():
                self._take(row)
            elif decision == Wait(begin_grace=True):
                self._save_lease(row, Lease.of(row).with_grace(row.clock.now()))
            return decision

    def claim_unless_taken(self) -> bool:
        """Write our lease if the row has not changed. Returns False if it has, or is not free."""
        with locking.locked(self.seen, skip_locked=True) as row:
            if row is None or row.version != self.seen.version:
                return False
            now = row.clock.now()
            if failed_since(row, self.since, now):
                return False
            if Lease.of(row).phase(self.me, now) is not Phase.FREE:
                return False
            if not row.refresh_token and row.expires_at > now:
                return False  # there is no refresh token to use
            # Mark the token as rejected, so that a failure is raised even while it is valid.
            self.rejected = row.access_token.reveal()
            self._take(row)
            return True

    def _take(self, row: QuotaToken) -> None:
        row.refresh_token.reveal()  # raises here, before a lease is written
        self._save_lease(row, Lease.taken(self.me, row.clock.now()))
        self.claimed = row

    def _save_lease(self, row: QuotaToken, lease: Lease) -> None:
        # Use the database of the row: in this thread, a router may return another tenant's.
        row.save(using=self.alias, update_fields=lease.write(row))

    def call_and_save(self) -> str:
        """Send the refresh token of the claimed row to Quota, and save the reply."""
        try:
            asked_at = time.monotonic()
            reply = self.call()
        except (ReauthenticationRequired, ProviderUnavailable, ConfigurationError) as error:
            return self.save_failure(error)
        return self.save(reply, asked_at)

    def call(self) -> endpoints.TokenReply:
        """Return Quota's reply. Its tokens exist here only, and must be saved or revoked."""
        if not self.claimed.refresh_token:
            raise ReauthenticationRequired(
                "Quota gave no refresh token; let the user sign in again.",
                provider_code="no_refresh_token",
            )
        with Issued(endpoints.refresh(self.claimed.refresh_token.reveal())) as issued:
            reply = checked_reply(issued.reply, self.claimed.account_external_id)
            issued.settle()
        return reply

    def save(self, reply: endpoints.TokenReply, asked_at: float) -> str:
        """Save the new tokens, and return the access token to use."""
        row = self._save(lambda: self._save_reply(reply, asked_at))
        if row is None:
            raise disconnected()
        if row.needs_sign_in:
            raise _sign_in_required()
        return row.access_token.reveal()

    def _save_reply(self, reply: endpoints.TokenReply, asked_at: float) -> QuotaToken | None:
        with locking.locked(self.claimed) as row:
            if row is not None and row.version == self.claimed.version:
                leases.NONE.write(row)
                write(row, reply, asked_at)
            elif row is not None and row.refresh_token.same_secret(self.claimed.refresh_token):
                # A sign-in without a refresh token, or an operator, has written the row, which
                # still has the token that we have just used. Replace it by its successor.
                write_successor(row, reply)
            elif row is None or row.needs_sign_in or row.grant != self.claimed.grant:
                # The user has disconnected or signed in again meanwhile, which wins: revoke our
                # tokens. But not if the grant is the same: then another worker took the lease over
                # and renewed within Quota's grace period, and revoking our token may end that
                # worker's token too (RFC 7009 section 2.1).
                revocation.queue_unless_kept(reply.refresh_token or "", row, using=self.alias)
            return row

    def save_failure(self, error: QuotaError) -> str:
        """Save the failure in the row and raise it, unless the row has a valid token to return."""
        final = isinstance(error, ReauthenticationRequired)
        noted_at = self.claimed.clock.now()
        row, ours = self._save(lambda: self._save_failure(error, noted_at, final=final))
        if ours:
            logger.warning("token %s not renewed: %s: %s", self.claimed.pk, error.code, error)
        if ours and final and row is not None and row.version == self.claimed.version:
            raise error
        if row is not None and row.needs_sign_in:
            raise _sign_in_required()
        if row is not None:
            valid = valid_token(row, self.rejected, row.clock.now())
            if valid is not None:
                return valid
        if not ours:  # the worker that has the lease now decides whether it has failed
            raise ProviderUnavailable("Another worker is renewing this token; try again soon.")
        if isinstance(error, RefreshRefused) and row is not None:
            raise failure(row, row.clock.now())
        raise error

    def _save_failure(
        self, error: QuotaError, noted_at: datetime, *, final: bool
    ) -> tuple[QuotaToken | None, bool]:
        """Return the row, and True if the failure was saved: the lease was still ours."""
        with locking.locked(self.claimed) as row:
            if row is not None and row.last_failure_at == noted_at:
                return row, True  # a first attempt was committed, but its confirmation was lost
            if row is None or row.lease_owner != self.me:
                return row, False
            columns = leases.NONE.write(row)
            if not row.needs_sign_in:
                row.last_failure = getattr(error, "provider_code", "") or error.code
                if isinstance(error, RefreshRefused):
                    row.last_failure = refusal(refused_since(self.claimed) or noted_at)
                row.last_failure_at = noted_at
            # If the version differs, a sign-in without a refresh token came meanwhile, and its
            # access token is valid.
            if final and row.version == self.claimed.version:
                row.status = QuotaToken.Status.REAUTHENTICATION_REQUIRED
            columns += ["last_failure", "last_failure_at", "status"]
            row.save(using=self.alias, update_fields=columns)
            return row, True

    def _save(self, work: Callable[[], T]) -> T:
        """Call `work`, which saves Quota's answer, and repeat it for SAVE_PATIENCE seconds."""
        try:
            return locking.retry(work, leases.SAVE_PATIENCE, alias=self.alias, any_error=True)
        except Error as error:
            name = type(error).__name__
            logger.error("token %s: Quota's answer could not be saved: %s", self.claimed.pk, name)
            raise ProviderUnavailable(
                "The database did not save Quota's answer; try again soon."
            ) from None

    def _note(self, error: TokenUnreadable) -> None:
        """Save `error` as the last failure, for the admin, whose lists do not decrypt tokens."""
        logger.warning("token %s not renewed: %s: %s", self.seen.pk, error.code, error)
        rows = QuotaToken.objects.using(self.alias)
        rows = rows.filter(pk=self.seen.pk, version=self.seen.version)
        values = {"last_failure": error.code, "last_failure_at": self.since}
        try:
            locking.under_lock(lambda: rows.update(**values), self.alias)
        except locking.RowLocked:
            logger.warning("token %s: the failure could not be saved in its row", self.seen.pk)


def _sign_in_required() -> ReauthenticationRequired:
    return ReauthenticationRequired("An operator has just required a new sign-in.")
