"""Write the tokens of a sign-in or of a renewal into their row."""

import logging
import secrets
import time
from datetime import timedelta
from typing import Any

from django.db import IntegrityError, models, router

from django_quota.exceptions import NotConnected, TokenUnreadable
from django_quota.fields import Sealed
from django_quota.models import PendingRevocation, ProviderAccount, QuotaToken
from django_quota.oidc.endpoints import TokenReply

from . import leases, locking, revocation
from .issued import Issued
from .places import database_of

logger = logging.getLogger("django_quota.tokens")

#: Bits of a random number that no other sign-in has, and that fits into the column.
GRANT_BITS = 60


def store(account: ProviderAccount, issued: Issued, *, asked: str) -> None:
    """Store the tokens of a sign-in or of Connect Wallet. They win over a renewal that is running.

    `asked` (str) contains the requested scopes, separated by spaces. The old refresh token goes to
    the revocation queue. If this raises, `issued` sends the new one there.

    Raises ProviderUnavailable if the row stays locked, NotConnected if the account is gone.
    """
    alias = router.db_for_write(QuotaToken, instance=account)
    sign_in = _SignIn(account, alias, issued.reply, asked)
    try:
        kept = locking.under_lock(sign_in.store, alias)
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


def _token_of(account: ProviderAccount, alias: str) -> QuotaToken | None:
    """Return the row that was loaded with `account`, or a new one if it has none yet.

    None if it was not loaded. Either may be out of date.
    """
    field: Any = ProviderAccount._meta.get_field("token")
    if not field.is_cached(account) or account._state.db != alias:
        return None
    row = field.get_cached_value(account) or QuotaToken(account_id=account.pk)
    # The row is changed, and the account must not show tokens that may not be stored.
    field.delete_cached_value(account)
    return _with_identity(row, account)


def _row_of(account: ProviderAccount, alias: str, *, create: bool = True) -> QuotaToken:
    """Return the row of `account`. Raises NotConnected if there is none and `create` is False."""
    rows = QuotaToken.objects.using(alias)
    if create:
        known, _created = rows.get_or_create(account_id=account.pk)
    elif (found := rows.filter(account_id=account.pk).first()) is not None:
        known = found
    else:
        raise disconnected()
    return _with_identity(known, account)


def _with_identity(row: QuotaToken, account: ProviderAccount) -> QuotaToken:
    """Return `row` with what `QuotaToken.identity` needs of its account."""
    row.account_user, row.account_external_id = account.user_id, account.external_id
    return row


class _SignIn:
    """The tokens of one sign-in, and the state of the attempts to save them."""

    def __init__(self, account: ProviderAccount, alias: str, reply: TokenReply, asked: str) -> None:
        self._account, self._alias = account, alias
        self._reply, self._asked = reply, asked
        self._began = time.monotonic()
        self._grant = secrets.randbits(GRANT_BITS)
        #: Grant and version of the row before the first attempt that may have committed.
        self.tried: tuple[int, int] | None = None
        #: The row that was loaded with the account, until the first attempt.
        self._seen = _token_of(account, alias)
        #: The refresh token of the row that the first attempt has created, if it did.
        self._created: Sealed | None = None
        self._known: QuotaToken | None = None

    def store(self) -> bool:
        """Save the tokens: over the row as it was loaded in one statement, else under its lock.

        Returns False if a later sign-in was saved between two attempts.
        """
        seen, self._seen = self._seen, None
        if seen is not None and self._save_over(seen):
            return True
        if self._known is None:
            # Create the row without a secret, so that a second attempt knows which row it was. If
            # that is gone, the user has disconnected, which must not be undone.
            self._known = _row_of(self._account, self._alias, create=self._may_create())
        return self.save(self._known)

    def _may_create(self) -> bool:
        """Return True if the row may be created, False if it was deleted after the first attempt.

        A deleted row leaves its refresh token in the queue. If it is not there, the COMMIT of the
        first attempt has failed.
        """
        if self.tried is None or not self._created:
            return self.tried is None
        queue = PendingRevocation.objects.using(self._alias)
        return not queue.filter(token=self._created).exists()

    def _save_over(self, seen: QuotaToken) -> bool:
        """Save the tokens if the row is as it was `seen`. Returns False if it is not."""
        try:
            with locking.write_transaction(self._alias) as seen.clock:
                return self._write(seen)
        except IntegrityError:  # another sign-in has created the row, or the account is gone
            return False

    def save(self, known: QuotaToken) -> bool:
        """Save the tokens under the lock of the row `known`. Returns what `store` returns."""
        with locking.locked(known) as row:
            if row is None:
                raise disconnected()
            if self.tried is not None:
                if self._was_kept(row, self.tried):
                    return True
                if row.grant != self.tried[0]:
                    return False
            return self._write(row)

    def _write(self, row: QuotaToken) -> bool:
        """Write the tokens into `row`. Returns False if it has changed since it was read."""
        before, old = (row.grant, row.version), row.refresh_token
        # RFC 6749 section 5.1: a reply without a scope means the requested scope.
        row.scope = self._asked
        columns = fill(row, self._reply, self._began)
        if self._reply.refresh_token is not None:
            row.grant = self._grant
            # Without a refresh token the lease stays: its owner is using the old one.
            columns += ["grant", *leases.NONE.write(row)]
        if row.pk is None:
            self._created = row.refresh_token
            row.save(using=self._alias, force_insert=True)
            if not _same_account(row).exists():
                raise disconnected()
        # Compare the ciphertext, too: `old` is queued as it is, so it must not be one that
        # `reencryption` has replaced.
        elif not _update(row, columns, version=before[1], refresh_token=old):
            return False
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


def _update(row: QuotaToken, columns: list[str], **seen: Any) -> bool:
    """Save `columns` of `row` in one statement, which locks it. Returns False if the row is gone,
    has other values than those `seen`, or belongs to another account."""
    rows = QuotaToken.objects.using(locking.database(row))
    same = rows.filter(pk=row.pk, account__in=_same_account(row), **seen)
    return bool(same.update(**{name: getattr(row, name) for name in columns}))


def _same_account(row: QuotaToken) -> "models.QuerySet[ProviderAccount]":
    """Return the account of `row`, unless it has become another person's since it was read."""
    return ProviderAccount.objects.using(locking.database(row)).filter(
        pk=row.account_id, user_id=row.account_user, external_id=row.account_external_id
    )


def write(row: QuotaToken, reply: TokenReply, asked_at: float) -> None:
    """`fill` and save a locked row."""
    fill(row, reply, asked_at)
    # Use the database of the row: in this thread, a router may return another tenant's.
    row.save(using=locking.database(row))


def fill(row: QuotaToken, reply: TokenReply, asked_at: float) -> list[str]:
    """Set the tokens of `reply` in `row`, which the caller saves. Returns the column names.

    What the reply leaves out stays as it was, and is not in the list. The lifetime counts from
    `asked_at` (`time.monotonic`), because the save may be long after Quota's answer.
    """
    since = row.clock.when(asked_at)
    tokens = {"refresh_token": reply.refresh_token, "id_token": reply.id_token}
    values = {
        "access_token": reply.access_token,
        **{name: token for name, token in tokens.items() if token is not None},
        "scope": reply.scope or row.scope,
        "expires_at": since + timedelta(seconds=reply.expires_in),
        "status": QuotaToken.Status.ACTIVE,
        "version": row.version + 1,
        "last_failure": "",
        "last_failure_at": None,
        "updated_at": since,
    }
    for name, value in values.items():
        setattr(row, name, value)
    return list(values)


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
