"""The tokens of an account: stored encrypted, and renewed exactly once.

Renewing is *claim, call, save*. The claim is a short transaction that locks the row, looks again
and writes a lease. The call to Quota is made with no lock held and no transaction open. The save
is a second short transaction. Whoever finds the lease taken goes on with the old token while that
is valid, else waits for the new one. One mechanism on PostgreSQL, MariaDB and SQLite; any number
of threads and processes make one call, and a rotating refresh token is spent once.
"""

import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.db import Error, IntegrityError, OperationalError, connections, router
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from . import id_token, leases, locking, provider, revocation
from .conf import get_settings
from .exceptions import (
    ConfigurationError,
    NotConnected,
    ProviderUnavailable,
    QuotaError,
    ReauthenticationRequired,
    RefreshImpossibleHere,
    TokenUnreadable,
)
from .lookup import token_row
from .models import ProviderAccount, QuotaToken

__all__ = [
    "aget_access_token",
    "get_access_token",
    "newest_id_token",
    "renew",
    "renew_unless_taken",
    "store",
]

T = TypeVar("T")

logger = logging.getLogger("django_quota.tokens")

#: Seconds for which everybody takes a failed renewal as the answer, instead of asking Quota again.
COOL_DOWN = 5
#: Seconds to wait for the lock of a row. The holder may be our very caller.
LOCK_PATIENCE = 2


@sensitive_variables()
def get_access_token(
    user: Any, *, rejected: str | None = None, timeout: float | None = None
) -> str:
    """An access token of `user`'s wallet that is valid now, renewed first if need be.

    One query and no HTTP while the token lasts longer than QUOTA_REFRESH_LEEWAY (30 seconds).
    `rejected` is a token that Quota has just refused with a 401: it is renewed whatever its
    expiry says, unless somebody else already has. `timeout` bounds the wait of this caller, in
    seconds; the renewal goes on without it.

    Raises NotConnected, ReauthenticationRequired, ProviderUnavailable, ConfigurationError,
    TokenUnreadable, RefreshImpossibleHere. The recipe, "Refresh on expiry".
    """
    try:
        row = token_row(user)
    except SynchronousOnlyOperation:
        raise ConfigurationError(
            "get_access_token asks the database; in async code, await aget_access_token, or use "
            "async_openai_client."
        ) from None
    if (token := _ready(row, rejected)) is not None:
        return token
    assert row is not None
    return _renew_from_here(row, rejected, timeout)


@sensitive_variables()
async def aget_access_token(user: Any, *, rejected: str | None = None) -> str:
    """`get_access_token` for async code. The event loop waits for nothing, and tasks that want the
    same renewal share one: it runs in a thread apart, and goes on if a task is cancelled."""

    def look() -> tuple[QuotaToken | None, bool]:
        return token_row(user), locking.in_transaction()

    # Not `afirst`: of 500 tasks that begin at once, the loop would build every query.
    row, in_transaction = await sync_to_async(look)()
    if (token := _ready(row, rejected)) is not None:
        return token
    assert row is not None

    @sensitive_variables()
    def work() -> str:
        return _renew_or_go_on(row, rejected, in_transaction)

    key = (row._state.db, row.pk, rejected, in_transaction)
    return await locking.shared(key, work, timeout=leases.longest())


@sensitive_variables()
def _ready(row: QuotaToken | None, rejected: str | None) -> str | None:
    """The access token if it needs no renewal, None if it does."""
    if row is None:
        raise NotConnected("This user has no Quota wallet connected; let them sign in with Quota.")
    if row.needs_sign_in:
        raise ReauthenticationRequired(
            "Quota ended this connection; let the user sign in again.",
            provider_code=row.last_failure,
        )
    fresh = row.lasts(get_settings().refresh_leeway) and row.access_token not in ("", rejected)
    return row.access_token if fresh else None


@sensitive_variables()
def _is_valid(row: QuotaToken, rejected: str | None) -> bool:
    """May its access token still be used, if only for the rest of the leeway?"""
    return row.lasts(0) and row.access_token not in ("", rejected)


@sensitive_variables()
def renew(account: ProviderAccount) -> None:
    """Renew the tokens of `account` now, whatever their expiry. For the admin and for operators.

    Raises what `get_access_token` raises.
    """
    row = QuotaToken.objects.filter(account=account).with_secrets("access_token").first()
    if row is None:
        raise NotConnected("This account has no tokens; let the user sign in with Quota.")
    _renew_from_here(row, row.access_token, None)


@sensitive_variables()
def _renew_from_here(row: QuotaToken, rejected: str | None, timeout: float | None) -> str:
    """Renew, on the caller's connection if that is in no transaction, else on one of our own."""
    in_transaction = locking.in_transaction()

    @sensitive_variables()
    def work() -> str:
        return _renew_or_go_on(row, rejected, in_transaction)

    if timeout is not None:
        key = (row._state.db, row.pk, rejected, in_transaction)
        return locking.in_background(key, work, timeout)
    return locking.apart(work).result() if in_transaction else work()


@sensitive_variables()
def _renew_or_go_on(row: QuotaToken, rejected: str | None, in_transaction: bool) -> str:
    """Renew; where that cannot be done now, go on with the old token while it is valid."""
    try:
        if in_transaction and _on_sqlite():
            raise RefreshImpossibleHere(
                "The access token has expired, and SQLite cannot save a new one while this "
                "transaction is open. Call get_access_token before the transaction begins."
            )
        return _renew(row, rejected, apart=in_transaction)
    except (RefreshImpossibleHere, ProviderUnavailable):
        if _is_valid(row, rejected):
            return row.access_token
        raise


def _on_sqlite() -> bool:
    return connections[router.db_for_write(QuotaToken)].vendor == "sqlite"


@sensitive_variables()
def _renew(row: QuotaToken, rejected: str | None, *, apart: bool = False) -> str:
    """Claim, call, save; or wait for whoever is doing so. Holds no lock while it waits."""
    owner = secrets.token_hex(16)
    started = timezone.now()
    give_up = time.monotonic() + leases.wait_time()
    late = leases.LateOwner(owner)
    pause = locking.POLL[0]

    def claim() -> QuotaToken | str | None:
        try:
            return _claim(row.pk, rejected, owner, started, late, apart=apart)
        except OperationalError:
            late.had_no_chance()
            raise

    while True:
        try:
            claimed = locking.patiently(claim, LOCK_PATIENCE)
        except OperationalError:
            raise _not_to_be_had(apart) from None
        if isinstance(claimed, str):
            return claimed
        if claimed is not None and leases.leaves_time(claimed):
            return _call_and_save(claimed, rejected)
        if time.monotonic() > give_up:
            raise ProviderUnavailable("Somebody else's renewal has not ended; try again soon.")
        time.sleep(pause)
        pause = min(pause * 2, locking.POLL[1])


def _not_to_be_had(apart: bool) -> QuotaError:
    if apart:
        return RefreshImpossibleHere(
            "The token row is locked, perhaps by the transaction that asks, or the database has no "
            "second connection for us. Renew the token before the transaction begins."
        )
    return ProviderUnavailable(
        "The database did not give the token row in time; try again soon.", request_sent=False
    )


@sensitive_variables()
def _claim(
    pk: Any,
    rejected: str | None,
    owner: str,
    started: datetime,
    late: leases.LateOwner,
    *,
    apart: bool,
) -> QuotaToken | str | None:
    """The row with our lease on it; or a token to go on with; or None: somebody else has it."""
    rows = QuotaToken.objects.with_secrets("access_token")
    # Looked at without the lock first: those who wait must neither queue up for it nor, on SQLite,
    # write. With 64 of them on PostgreSQL one in three did not get it within LOCK_PATIENCE.
    row = rows.filter(pk=pk).first()
    token, leased = _verdict(row, rejected, started, apart=apart)
    assert row is not None
    if token is not None or (leased and not late.worth_a_lock(row)):
        return token
    try:
        with locking.locked(pk, "access_token", "refresh_token") as row:
            token, taken = _verdict(row, rejected, started, apart=apart)
            assert row is not None
            if token is not None or (taken and not late.is_gone(row)):
                return token
            if not row.refresh_token and _is_valid(row, rejected):
                return row.access_token  # there is nothing to renew it with
            leases.take(row, owner)
            return row
    except OperationalError:
        if apart or not leased:
            raise
        late.had_no_chance()
        return None  # locked by others, or by the owner of the ended lease, who is saving


@sensitive_variables()
def _verdict(
    row: QuotaToken | None, rejected: str | None, started: datetime, *, apart: bool
) -> tuple[str | None, bool]:
    """The token to go on with, if any, and whether somebody else is renewing it, or saving it."""
    if row is None:
        if apart:
            raise RefreshImpossibleHere(
                "The token row is not committed yet, so no other connection can renew it. "
                "Commit first; in tests see django_quota.testing."
            )
        raise NotConnected("This user's Quota wallet was disconnected just now.")
    token, leased = _ready(row, rejected), leases.is_taken(row)
    if token is None:
        valid = _is_valid(row, rejected)
        failed = _failed_since(row, min(started, timezone.now() - timedelta(seconds=COOL_DOWN)))
        if failed and not valid:
            raise ProviderUnavailable("Quota could not renew the token just now; try again soon.")
        if valid and (failed or leased):
            token = row.access_token
    return token, leased


def _failed_since(row: QuotaToken, moment: datetime) -> bool:
    # A clock that was set back must not make a failure of "the future" last for ever.
    return row.last_failure_at is not None and moment < row.last_failure_at <= timezone.now()


@sensitive_variables()
def renew_unless_taken(
    seen: QuotaToken, *, since: datetime, patience: float = LOCK_PATIENCE
) -> bool:
    """Renew a row that is as it was `seen` a moment ago; for bulk work, which waits for nobody.

    False if somebody else has the row, has written it, or has failed to renew it after `since`; or
    if it has no refresh token, as long as the access token lasts.
    `patience`: seconds to wait for a database that is away, while nothing is spent.
    Not for callers in a transaction. Raises what `get_access_token` raises.
    """
    owner = secrets.token_hex(16)

    def claim() -> QuotaToken | None:
        columns = ("access_token", "refresh_token")
        with locking.locked(seen.pk, *columns, skip_locked=True) as row:
            if row is None or row.version != seen.version:
                return None
            if _failed_since(row, since) or leases.is_taken(row):
                return None
            if not row.refresh_token and row.lasts(0):
                return None  # there is nothing to renew it with
            leases.take(row, owner)
            return row

    try:
        claimed = locking.patiently(claim, patience)
    except OperationalError:
        raise _not_to_be_had(apart=False) from None
    except TokenUnreadable as error:
        _note_unreadable(seen, error)
        raise
    if claimed is None:
        return False
    if not leases.leaves_time(claimed):
        raise ProviderUnavailable(
            "The database took too long to commit the lease; try again later.", request_sent=False
        )
    # Whoever asked for the renewal wants to hear of a failure, however long the token lasts.
    _call_and_save(claimed, claimed.access_token)
    return True


def _note_unreadable(seen: QuotaToken, error: TokenUnreadable) -> None:
    """For the admin, which decrypts nothing in its lists. The secrets stay as they are."""
    logger.warning("token %s not renewed: %s: %s", seen.pk, error.code, error)
    rows = QuotaToken.objects.filter(pk=seen.pk, version=seen.version)

    def save() -> None:
        rows.update(last_failure=error.code, last_failure_at=timezone.now())

    try:
        locking.patiently(save, LOCK_PATIENCE)
    except OperationalError:
        logger.warning("token %s: that could not be noted in its row", seen.pk)


@sensitive_variables()
def _call_and_save(row: QuotaToken, rejected: str | None) -> str:
    """Spend the refresh token of a row that we hold the lease of, and save what comes back."""
    try:
        if not row.refresh_token:
            raise ReauthenticationRequired(
                "Quota gave no refresh token; let the user sign in again.",
                provider_code="no_refresh_token",
            )
        asked_at = time.monotonic()
        reply = _checked(provider.refresh(row.refresh_token), row.account.external_id)
    except (ReauthenticationRequired, ProviderUnavailable, ConfigurationError) as error:
        return _save_failure(row, rejected, error)
    return _save_reply(row, reply, asked_at)


@sensitive_variables()
def _checked(reply: provider.TokenReply, external_id: str) -> provider.TokenReply:
    """OpenID Connect Core 1.0 section 12.2: a renewed id_token names the same sub, iss and aud."""
    if reply.id_token is None:
        return reply
    claims = id_token.unverified_claims(reply.id_token)
    if claims and claims.get("sub") != external_id:
        # Using it would charge a stranger's wallet; keeping the old token would try again for ever.
        raise ReauthenticationRequired(
            "The renewed tokens belong to somebody else and were dropped; let the user sign in "
            "again.",
            provider_code="other_subject",
        )
    settings, audience = get_settings(), claims.get("aud")
    ours = settings.client_id in (audience if isinstance(audience, list) else [audience])
    if ours and claims.get("iss") in (settings.base_url, settings.issuer or settings.base_url):
        return reply
    # The tokens are this person's. The id_token is but a hint for the sign-out: the old one serves.
    logger.warning("a renewed id_token cannot be read, or is another's, and was dropped")
    return replace(reply, id_token=None)


@sensitive_variables()
def _save_reply(claimed: QuotaToken, reply: provider.TokenReply, asked_at: float) -> str:
    """Save the new pair, which exists nowhere else."""

    def save() -> QuotaToken | None:
        # Without its secrets: what it holds may be under a key that this process has not got yet.
        with locking.locked(claimed.pk) as row:
            if row is not None and row.version == claimed.version:
                _write(row, reply, asked_at)
            elif row is None or row.needs_sign_in or row.grant != claimed.grant:
                # Disconnected, or signed in again, meanwhile: theirs wins, ours is given back. Of
                # the same grant it was renewed by somebody who took us for dead, in Quota's grace
                # period: RFC 7009 section 2.1, to revoke ours may end theirs.
                revocation.queue_unless_kept(reply.refresh_token, row)
            return row

    row = _save(save, claimed.pk)
    if row is None:
        raise NotConnected("This user's Quota wallet was disconnected just now.")
    if row.needs_sign_in:
        raise _sign_in_asked_for()
    return row.access_token


def _save(work: Callable[[], T], pk: Any) -> T:
    """`work`, which saves what Quota has answered, with all patience that there is."""
    try:
        return locking.patiently(work, leases.SAVE_PATIENCE, any_error=True)
    except Error as error:
        name = type(error).__name__
        logger.error("token %s: what Quota answered could not be saved: %s", pk, name)
        raise ProviderUnavailable(
            "The database did not save what Quota has answered; try again soon."
        ) from None


def _sign_in_asked_for() -> ReauthenticationRequired:
    return ReauthenticationRequired("An operator asked for a new sign-in just now.")


@sensitive_variables()
def _save_failure(claimed: QuotaToken, rejected: str | None, error: QuotaError) -> str:
    """Note why the renewal failed, and raise it; unless there is a token to go on with."""
    final = isinstance(error, ReauthenticationRequired)

    def save() -> tuple[QuotaToken | None, bool]:
        with locking.locked(claimed.pk, "access_token") as row:
            if row is None or (row.version, row.lease_owner) != (
                claimed.version,
                claimed.lease_owner,
            ):
                return row, False
            row.last_failure = getattr(error, "provider_code", "") or error.code
            row.last_failure_at = timezone.now()
            row.lease_owner, row.lease_until = "", None
            if final:
                row.status = QuotaToken.Status.REAUTHENTICATION_REQUIRED
            row.save()
            return row, True

    row, ours = _save(save, claimed.pk)
    if ours:
        logger.warning("token %s not renewed: %s: %s", claimed.pk, error.code, error)
    if ours and final:
        raise error
    if row is not None and row.needs_sign_in:
        raise _sign_in_asked_for()
    if row is not None and _is_valid(row, rejected):
        return row.access_token
    if not ours:  # nor is the verdict: whoever has the row now will find out
        raise ProviderUnavailable("Somebody else renews this token; try again soon.")
    raise error


@sensitive_variables()
def store(account: ProviderAccount, reply: provider.TokenReply, *, asked: str = "") -> None:
    """Keep the tokens of a sign-in or of Connect Wallet; they win over a renewal under way.

    `asked` are the scopes that were asked for, separated by spaces. The refresh token that is
    superseded goes to the revocation queue, and so does the new one where it cannot be kept.

    Raises ProviderUnavailable if the row stays locked, NotConnected if the account is gone.
    """
    began = time.monotonic()

    def save() -> bool:
        try:
            known, _created = QuotaToken.objects.get_or_create(account=account)
        except IntegrityError:  # its account is gone
            return False
        with locking.locked(known.pk) as row:
            if row is None:
                return False
            old = revocation.readable(row, "refresh_token")
            _write(row, reply, began)
            # RFC 6749 section 5.1: no scope in the reply means the scope that was asked for.
            row.scope = reply.scope or asked
            row.grant += 1
            row.save(update_fields=["scope", "grant"])
            revocation.queue_unless_kept(old, row)
        return True

    try:
        kept = locking.patiently(save, LOCK_PATIENCE)
    except OperationalError:
        _give_back(reply.refresh_token or "")
        raise _not_to_be_had(apart=False) from None
    if not kept:
        revocation.queue(reply.refresh_token or "")
        raise NotConnected("This user's Quota wallet was disconnected just now.")


@sensitive_variables()
def _give_back(refresh_token: str) -> None:
    """Queue a token that could not be saved, if the database takes that."""

    @sensitive_variables()
    def work() -> None:
        revocation.queue(refresh_token)

    try:
        # The error that follows would take what the caller's transaction has written with it. On
        # SQLite only who catches it there keeps that: no other connection can write meanwhile.
        if locking.in_transaction() and not _on_sqlite():
            locking.apart(work).result()
        else:
            work()
    except Error as error:
        logger.warning("a refresh token could not be queued: %s", type(error).__name__)


@sensitive_variables()
def _write(row: QuotaToken, reply: provider.TokenReply, asked_at: float) -> None:
    """The one place where tokens are written. What a reply leaves out stays as it was.

    They date from `asked_at`, of `time.monotonic`, as the save may come long after Quota's answer
    and the clock may be set in between.
    """
    since = timezone.now() - timedelta(seconds=time.monotonic() - asked_at)
    row.access_token = reply.access_token
    if reply.refresh_token is not None:
        row.refresh_token = reply.refresh_token
    if reply.id_token is not None:
        row.id_token = reply.id_token
    row.scope = reply.scope or row.scope
    row.expires_at = since + timedelta(seconds=reply.expires_in)
    row.status = QuotaToken.Status.ACTIVE
    row.version += 1
    row.lease_owner, row.lease_until = "", None
    row.last_failure, row.last_failure_at = "", None
    row.updated_at = since
    row.save()  # deferred columns, which no reply has touched, are left alone


@sensitive_variables()
def newest_id_token(user: Any) -> str:
    """The id_token of `user`'s account, for the sign-out at Quota; "" if there is none to send."""
    try:
        row = QuotaToken.objects.for_user(user).with_secrets("id_token").first()
    except TokenUnreadable:
        logger.warning("the id_token of user %s cannot be decrypted", user.pk)
        return ""
    return row.id_token if row else ""
