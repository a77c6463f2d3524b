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
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from asgiref.sync import sync_to_async
from django.db import OperationalError, connections, router
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from . import id_token, locking, provider, revocation
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
from .models import ProviderAccount, QuotaToken

__all__ = [
    "aget_access_token",
    "get_access_token",
    "lease_time",
    "newest_id_token",
    "renew",
    "renew_unless_taken",
    "store",
]

logger = logging.getLogger("django_quota.tokens")

#: Seconds for which everybody takes a failed renewal as the answer, instead of asking Quota again.
COOL_DOWN = 5
#: Seconds that a lease outlives QUOTA_DEADLINE: the save of its owner comes after the call.
LEASE_MARGIN = 5
#: Seconds to wait for the lock of a row. The holder may be our very caller.
LOCK_PATIENCE = 2
#: Seconds to go on trying to save: what Quota has answered exists nowhere else.
SAVE_PATIENCE = 60


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
    row = QuotaToken.objects.for_user(user).one()
    if (token := _ready(row, rejected)) is not None:
        return token
    assert row is not None
    return _renew_from_here(row, rejected, timeout)


@sensitive_variables()
async def aget_access_token(user: Any, *, rejected: str | None = None) -> str:
    """`get_access_token` for async code. The event loop waits for nothing, and tasks that want the
    same renewal share one: it runs in a thread apart, and goes on if a task is cancelled."""

    def look() -> tuple[QuotaToken | None, bool]:
        return QuotaToken.objects.for_user(user).one(), locking.in_transaction()

    # Not `afirst`: of 500 tasks that begin at once, the loop would build every query.
    row, in_transaction = await sync_to_async(look)()
    if (token := _ready(row, rejected)) is not None:
        return token
    assert row is not None

    @sensitive_variables()
    def work() -> str:
        return _renew_or_go_on(row, rejected, in_transaction)

    key = (row._state.db, row.pk, rejected, in_transaction)
    return await locking.shared(key, work, timeout=get_settings().deadline + LEASE_MARGIN)


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
        return locking.in_background(work, timeout)
    return locking.apart(work).result() if in_transaction else work()


@sensitive_variables()
def _renew_or_go_on(row: QuotaToken, rejected: str | None, in_transaction: bool) -> str:
    """Renew; where that cannot be done now, go on with the old token while it is valid."""
    try:
        if in_transaction and connections[router.db_for_write(QuotaToken)].vendor == "sqlite":
            raise RefreshImpossibleHere(
                "The access token has expired, and SQLite cannot save a new one while this "
                "transaction is open. Call get_access_token before the transaction begins."
            )
        return _renew(row, rejected, apart=in_transaction)
    except (RefreshImpossibleHere, ProviderUnavailable):
        if _is_valid(row, rejected):
            return row.access_token
        raise


@sensitive_variables()
def _renew(row: QuotaToken, rejected: str | None, *, apart: bool = False) -> str:
    """Claim, call, save; or wait for whoever is doing so. Holds no lock while it waits."""
    settings = get_settings()
    owner = secrets.token_hex(16)
    started = timezone.now()
    give_up = time.monotonic() + settings.deadline + LEASE_MARGIN
    pause = locking.POLL[0]
    while True:
        try:
            claimed = locking.patiently(
                lambda: _claim(row.pk, rejected, owner, started, apart=apart), LOCK_PATIENCE
            )
        except OperationalError:
            raise _not_to_be_had(apart) from None
        if isinstance(claimed, str):
            return claimed
        if claimed is not None:
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
    pk: Any, rejected: str | None, owner: str, started: datetime, *, apart: bool
) -> QuotaToken | str | None:
    """The row with our lease on it; or a token to go on with; or None: somebody else has it."""
    rows = QuotaToken.objects.with_secrets("access_token")
    # Looked at without the lock first: those who wait must neither queue up for it nor, on SQLite,
    # write. With 64 of them on PostgreSQL one in three did not get it within LOCK_PATIENCE.
    token, leased = _verdict(rows.filter(pk=pk).first(), rejected, started, apart=apart)
    if token is not None or leased:
        return token
    with locking.locked(pk, "access_token", "refresh_token") as row:
        token, leased = _verdict(row, rejected, started, apart=apart)
        if token is not None or leased:
            return token
        assert row is not None
        _lease(row, owner)
        return row


@sensitive_variables()
def _verdict(
    row: QuotaToken | None, rejected: str | None, started: datetime, *, apart: bool
) -> tuple[str | None, bool]:
    """The token to go on with, if any, and whether somebody else is renewing it."""
    if row is None:
        if apart:
            raise RefreshImpossibleHere(
                "The token row is not committed yet, so no other connection can renew it. "
                "Commit first; in tests see django_quota.testing."
            )
        raise NotConnected("This user's Quota wallet was disconnected just now.")
    token, leased = _ready(row, rejected), _is_leased(row)
    if token is None:
        valid = _is_valid(row, rejected)
        failed = _failed_since(row, min(started, timezone.now() - timedelta(seconds=COOL_DOWN)))
        if failed and not valid:
            raise ProviderUnavailable("Quota could not renew the token just now; try again soon.")
        if valid and (failed or leased):
            token = row.access_token
    return token, leased


def lease_time() -> timedelta:
    """How long a renewal may take before another is begun."""
    return timedelta(seconds=get_settings().deadline + LEASE_MARGIN)


def _is_leased(row: QuotaToken) -> bool:
    now = timezone.now()
    # A lease longer than any is one of a clock that has been set back since.
    return row.lease_until is not None and now < row.lease_until <= now + lease_time()


def _lease(row: QuotaToken, owner: str) -> None:
    # Now, for `_checked`: while the row is locked its account cannot go. And from here, as a router
    # would send `row.account` to a replica that may not have it yet.
    row.account = ProviderAccount.objects.using(row._state.db).get(pk=row.account_id)
    row.lease_owner = owner
    row.lease_until = timezone.now() + lease_time()
    row.save(update_fields=["lease_owner", "lease_until"])  # the secrets are not encrypted anew


def _failed_since(row: QuotaToken, moment: datetime) -> bool:
    # A clock that was set back must not make a failure of "the future" last for ever.
    return row.last_failure_at is not None and moment < row.last_failure_at <= timezone.now()


@sensitive_variables()
def renew_unless_taken(seen: QuotaToken, *, since: datetime) -> bool:
    """Renew a row that is as it was `seen` a moment ago; for bulk work, which waits for nobody.

    False if somebody else has the row, has written it, or has failed to renew it after `since`.
    Not for callers in a transaction. Raises what `get_access_token` raises.
    """
    owner = secrets.token_hex(16)

    def claim() -> QuotaToken | None:
        columns = ("access_token", "refresh_token")
        with locking.locked(seen.pk, *columns, skip_locked=True) as row:
            if row is None or row.version != seen.version:
                return None
            if _failed_since(row, since) or _is_leased(row):
                return None
            _lease(row, owner)
            return row

    try:
        claimed = locking.patiently(claim, LOCK_PATIENCE)
    except OperationalError:
        raise _not_to_be_had(apart=False) from None
    except TokenUnreadable as error:
        logger.warning("token %s not renewed: %s: %s", seen.pk, error.code, error)
        # For the admin, which decrypts nothing in its lists. The secrets stay as they are.
        QuotaToken.objects.filter(pk=seen.pk, version=seen.version).update(
            last_failure=error.code, last_failure_at=timezone.now()
        )
        raise
    if claimed is not None:
        # Whoever asked for the renewal wants to hear of a failure, however long the token lasts.
        _call_and_save(claimed, claimed.access_token)
    return claimed is not None


@sensitive_variables()
def _call_and_save(row: QuotaToken, rejected: str | None) -> str:
    """Spend the refresh token of a row that we hold the lease of, and save what comes back."""
    try:
        if not row.refresh_token:
            raise ReauthenticationRequired(
                "Quota gave no refresh token; let the user sign in again.",
                provider_code="no_refresh_token",
            )
        reply = _checked(provider.refresh(row.refresh_token), row.account.external_id)
    except (ReauthenticationRequired, ProviderUnavailable, ConfigurationError) as error:
        return _save_failure(row, rejected, error)
    return _save_reply(row, reply)


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
def _save_reply(claimed: QuotaToken, reply: provider.TokenReply) -> str:
    """Save the new pair, which exists nowhere else: with all patience that there is."""

    def save() -> QuotaToken | None:
        with locking.locked(claimed.pk, "access_token") as row:
            if row is not None and row.version == claimed.version:
                _write(row, reply)
            elif row is None or row.access_token != reply.access_token:
                # Disconnected, or signed in again, meanwhile: theirs wins, ours is given back.
                revocation.queue_unless_kept(reply.refresh_token, row)
            return row

    row = locking.patiently(save, SAVE_PATIENCE)
    if row is None:
        raise NotConnected("This user's Quota wallet was disconnected just now.")
    if row.needs_sign_in:
        raise ReauthenticationRequired("An operator asked for a new sign-in just now.")
    return row.access_token


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

    row, ours = locking.patiently(save, SAVE_PATIENCE)
    if ours:
        logger.warning("token %s not renewed: %s: %s", claimed.pk, error.code, error)
    if row is not None and _is_valid(row, rejected) and not (ours and final):
        return row.access_token
    if not ours:  # nor is the verdict: whoever has the row now will find out
        raise ProviderUnavailable("Somebody else renews this token; try again soon.")
    raise error


@sensitive_variables()
def store(account: ProviderAccount, reply: provider.TokenReply, *, asked: str = "") -> None:
    """Keep the tokens of a sign-in or of Connect Wallet; they win over a renewal under way.

    `asked` are the scopes that were asked for. The refresh token that is superseded goes to the
    revocation queue. Raises ProviderUnavailable if the row stays locked.
    """
    known, _created = QuotaToken.objects.get_or_create(account=account)

    def save() -> None:
        with locking.locked(known.pk) as row:
            if row is None:
                raise NotConnected("This user's Quota wallet was disconnected just now.")
            old = revocation.readable(row, "refresh_token")
            _write(row, reply)
            # RFC 6749 section 5.1: no scope in the reply means the scope that was asked for.
            row.scope = reply.scope or asked
            row.save(update_fields=["scope"])
            revocation.queue_unless_kept(old, row)

    try:
        locking.patiently(save, LOCK_PATIENCE)
    except OperationalError:
        raise _not_to_be_had(apart=False) from None


@sensitive_variables()
def _write(row: QuotaToken, reply: provider.TokenReply) -> None:
    """The one place where tokens are written. What a reply leaves out stays as it was."""
    row.access_token = reply.access_token
    if reply.refresh_token is not None:
        row.refresh_token = reply.refresh_token
    if reply.id_token is not None:
        row.id_token = reply.id_token
    now = timezone.now()
    row.scope = reply.scope or row.scope
    row.expires_at = now + timedelta(seconds=reply.expires_in)
    row.status = QuotaToken.Status.ACTIVE
    row.version += 1
    row.lease_owner, row.lease_until = "", None
    row.last_failure, row.last_failure_at = "", None
    row.updated_at = now
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
