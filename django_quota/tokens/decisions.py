"""Decide whether to renew a token row. Pure functions, without the database and without Quota."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django_quota.conf import get_settings
from django_quota.exceptions import (
    NotConnected,
    ProviderUnavailable,
    QuotaError,
    ReauthenticationRequired,
    RefreshRefused,
)
from django_quota.models import QuotaToken

from .clock import is_recent
from .leases import Lease, Phase

#: Seconds after a failed renewal in which all callers get that failure, and Quota is not called.
COOL_DOWN = 5
#: Seconds after which a second refusal without a reason means that the user must sign in again.
SURE_REFUSAL = 60
_REFUSED = "refused since "


@dataclass(frozen=True)
class GoOnWith:
    """Do not renew; use this token."""

    token: str


@dataclass(frozen=True)
class Renew:
    """Renew the token."""


@dataclass(frozen=True)
class Wait:
    """Another worker is renewing the token.

    With `begin_grace` its lease has ended, and the next worker that locks the row begins the grace.
    """

    begin_grace: bool = False


Decision = GoOnWith | Renew | Wait


def decide(
    row: QuotaToken | None,
    *,
    me: str,
    rejected: str | None,
    since: datetime,
    now: datetime,
    waited: float = 0,
) -> Decision:
    """Decide what the worker `me` does about `row`, which was read at `now`.

    The caller has wanted a token other than `rejected` since the time `since`. The lock of the row
    took `waited` seconds. Raises NotConnected, ReauthenticationRequired, TokenUnreadable, and
    ProviderUnavailable if a renewal has failed after `since` or within the last COOL_DOWN seconds.
    """
    row = require_connected(row)
    if (token := fresh_token(row, rejected, now)) is not None:
        return GoOnWith(token)
    valid = valid_token(row, rejected, now)
    if failed_since(row, min(since, now - timedelta(seconds=COOL_DOWN)), now):
        if valid is None:
            raise failure(row, now)
        return GoOnWith(valid)
    phase = Lease.of(row).phase(me, now, waited=waited)
    if valid is not None and (phase is not Phase.FREE or not row.refresh_token):
        return GoOnWith(valid)
    return Renew() if phase is Phase.FREE else Wait(begin_grace=phase is Phase.ENDED)


def require_connected(row: QuotaToken | None) -> QuotaToken:
    """Return `row`. Raises NotConnected if it is None, ReauthenticationRequired if it has ended."""
    if row is None:
        raise NotConnected("This user has no Quota wallet connected; let them sign in with Quota.")
    if row.needs_sign_in:
        raise ReauthenticationRequired(
            "Quota ended this connection; let the user sign in again.",
            provider_code=row.last_failure,
        )
    return row


def fresh_token(row: QuotaToken, rejected: str | None, now: datetime) -> str | None:
    """Return the access token; None if it needs a renewal. Raises TokenUnreadable."""
    return valid_token(row, rejected, now) if is_fresh(row, now) else None


def is_fresh(row: QuotaToken, now: datetime) -> bool:
    """Return True if the access token lasts longer than QUOTA_REFRESH_LEEWAY."""
    return row.expires_at > now + timedelta(seconds=get_settings().refresh_leeway)


def valid_token(row: QuotaToken, rejected: str | None, now: datetime) -> str | None:
    """Return the access token if it has not expired at `now`, even within the leeway; else None."""
    if row.expires_at <= now:
        return None
    token = row.access_token.reveal()
    return token if token not in ("", rejected) else None


def failure(row: QuotaToken, now: datetime) -> QuotaError:
    """Return the error that the failure noted in `row` means for a caller without a valid token."""
    since = refused_since(row)
    if since is None:
        return ProviderUnavailable("Quota could not renew the token just now; try again soon.")
    if since > now - timedelta(seconds=SURE_REFUSAL):
        return RefreshRefused("Quota refused the refresh token just now; try again, or sign in.")
    return ReauthenticationRequired(
        f"Quota has refused the refresh token since {since.isoformat()}, without saying why; it is "
        "kept. Let the user sign in again.",
        provider_code="refused",
    )


def refusal(since: datetime) -> str:
    """Return the `last_failure` of a token that Quota has refused since the time `since`."""
    return f"{_REFUSED}{since.isoformat(timespec='seconds')}"


def refused_since(row: QuotaToken) -> datetime | None:
    """Return the time since when Quota has refused this token without a reason; else None."""
    if not row.last_failure.startswith(_REFUSED):
        return None
    return datetime.fromisoformat(row.last_failure.removeprefix(_REFUSED))


def failed_since(row: QuotaToken, moment: datetime, now: datetime) -> bool:
    """Return True if a renewal has failed after `moment` and not after `now`."""
    return row.last_failure_at is not None and is_recent(now - row.last_failure_at, now - moment)
