"""Write the tokens of a sign-in or of a renewal into their row."""

import logging
import secrets
import time
from datetime import timedelta
from typing import Any

from django.db import IntegrityError, router

from django_quota.exceptions import NotConnected, TokenUnreadable
from django_quota.models import ProviderAccount, QuotaToken
from django_quota.oidc.endpoints import TokenReply

from . import leases, locking, revocation
from .issued import Issued
from .places import database_of

logger = logging.getLogger("django_quota.tokens")

#: Bits of a random number that no other sign-in has, and that fits into the column.
GRANT_BITS = 60


def store(account: ProviderAccount, reply: TokenReply, *, asked: str = "") -> None:
    """Store the tokens of a sign-in or of Connect Wallet. They win over a renewal that is running.

    `asked` (str) contains the requested scopes, separated by spaces. The old refresh token goes to
    the revocation queue, and so does the new one if it cannot be stored.

    Raises ProviderUnavailable if the row stays locked, NotConnected if the account is gone.
    """
    with Issued(reply) as issued:
        keep(account, issued, asked=asked)


def keep(account: ProviderAccount, issued: Issued, *, asked: str = "") -> None:
    """`store` for tokens that the caller holds in an `Issued`, which drops them if this raises."""
    alias = router.db_for_write(QuotaToken, instance=account)
    sign_in = _SignIn(alias, issued.reply, asked)
    try:
        # First create the row, without a secret, so that a second attempt to save knows which row
        # it was: if that is gone, the user has disconnected, which must not be undone.
        known = locking.under_lock(lambda: _row_of(account, alias), alias)
        kept = locking.under_lock(lambda: sign_in.save(known), alias)
    except IntegrityError:  # the account is gone
        raise disconnected() from None
    except locking.RowLocked:
        if sign_in.tried is not None:
            # The row may contain the new tokens: revoking them could end the connection of a person
            # who has just signed in. If it does not, they expire unused.
            logger.warning("account %s: unknown whether the sign-in's token was stored", account.pk)
            issued.settle()
        raise
    if kept:
        issued.settle()


def _row_of(account: ProviderAccount, alias: str) -> QuotaToken:
    known, _created = QuotaToken.objects.using(alias).get_or_create(account_id=account.pk)
    known.account_user = account.user_id
    known.account_external_id = account.external_id
    return known


class _SignIn:
    """The tokens of one sign-in, and the state of the attempts to save them."""

    def __init__(self, alias: str, reply: TokenReply, asked: str) -> None:
        self._alias, self._reply, self._asked = alias, reply, asked
        self._began = time.monotonic()
        self._grant = secrets.randbits(GRANT_BITS)
        #: Grant and version of the row before the first attempt that may have committed.
        self.tried: tuple[int, int] | None = None

    def save(self, known: QuotaToken) -> bool:
        """Save the tokens. Returns False if a later sign-in was saved between two attempts."""
        with locking.locked(known) as row:
            if row is None:
                raise disconnected()
            if self.tried is not None:
                if self._was_kept(row, self.tried):
                    return True
                if row.grant != self.tried[0]:
                    return False
            before, old = (row.grant, row.version), row.refresh_token
            # RFC 6749 section 5.1: a reply without a scope means the requested scope.
            row.scope = self._asked
            if self._reply.refresh_token is not None:
                row.grant = self._grant
                # Without a refresh token the lease stays: its owner is using the old one.
                leases.NONE.write(row)
            write(row, self._reply, self._began)
            revocation.queue_unless_kept(old, row, using=self._alias)
            self.tried = self.tried or before  # from now on, the commit may have happened
        return True

    def _was_kept(self, row: QuotaToken, tried: tuple[int, int]) -> bool:
        """Return True if the first attempt was committed, and only its confirmation was lost.

        The tokens may have been renewed since, so they cannot be compared. Without a refresh token
        the grant does not change either; then any later write counts as ours.
        """
        if self._reply.refresh_token is not None:
            return row.grant == self._grant
        return (row.grant, row.version) != tried


def write(row: QuotaToken, reply: TokenReply, asked_at: float) -> None:
    """Write the tokens of `reply` into a locked row. What the reply leaves out stays as it was.

    The lifetime counts from `asked_at` (`time.monotonic`), because the save may be long after
    Quota's answer.
    """
    since = row.clock.when(asked_at)
    row.access_token = reply.access_token
    if reply.refresh_token is not None:
        row.refresh_token = reply.refresh_token
    if reply.id_token is not None:
        row.id_token = reply.id_token
    row.scope = reply.scope or row.scope
    row.expires_at = since + timedelta(seconds=reply.expires_in)
    row.status = QuotaToken.Status.ACTIVE
    row.version += 1
    row.last_failure, row.last_failure_at = "", None
    row.updated_at = since
    # Use the database of the row: in this thread, a router may return another tenant's.
    row.save(using=locking.database(row))


def write_successor(row: QuotaToken, reply: TokenReply) -> None:
    """Write the refresh token of a renewal only, and keep what others wrote meanwhile."""
    columns = leases.NONE.write(row)
    if reply.refresh_token is not None:
        row.refresh_token = reply.refresh_token
        row.version += 1
        columns += ["refresh_token", "version"]
    row.save(using=locking.database(row), update_fields=columns)


def newest_id_token(user: Any) -> str:
    """Return the id_token of `user`'s account, for the sign-out at Quota; "" if there is none."""
    row = QuotaToken.objects.for_user(user).using(database_of(user)).first()
    try:
        return row.id_token.reveal() if row else ""
    except TokenUnreadable:
        logger.warning("the id_token of user %s cannot be decrypted", user.pk)
        return ""


def disconnected() -> NotConnected:
    """Return the error for a row that was deleted a moment ago."""
    return NotConnected("This user's Quota wallet was disconnected just now.")
