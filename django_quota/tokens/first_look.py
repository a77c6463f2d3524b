"""The token that was read for the check before a view, for the first call of the view.

Without it, a view with `@quota_required` would read the row twice within milliseconds, and async
code would enter a thread for each reading.
"""

import time
from typing import Any

from django.conf import settings
from django.http import HttpRequest

from django_quota.models import QuotaToken
from django_quota.secret import Secret

from .clock import is_recent
from .decisions import is_fresh
from .payer import current_request

#: Seconds for which the token is used.
MAX_AGE = 1
#: The attribute of the request that stores it.
_KEPT = "_django_quota_first_look"


class _Kept:
    """The user, the row and its token. No repr, JSON or pickle of the request shows the token."""

    __slots__ = ("row", "token", "user")

    def __init__(self, user: Any, row: QuotaToken, token: str) -> None:
        self.user, self.row, self.token = user, row, Secret(token)

    def __reduce__(self) -> Any:
        return type(None), ()


def is_usable() -> bool:
    """Return False with database routers: a view may bill wallets of several tenants."""
    return not settings.DATABASE_ROUTERS


def keep(user: Any, row: QuotaToken, token: str) -> None:
    """Store the access token of `row`, read for `user` just now, on the current request."""
    request = current_request()
    if request is not None and is_usable():
        setattr(request, _KEPT, _Kept(user, row, token))


def take(user: Any) -> str | None:
    """Return the token that was kept for `user` in the current request, and forget it.

    None if there is none, or if it is about to expire. Only for the same user object: an equal one
    may come from another schema, where it is another person. It makes no query.
    """
    kept: _Kept | None = getattr(current_request(), _KEPT, None)
    if kept is None or kept.user is not user:
        return None
    forget()
    row = kept.row
    is_same = row.account_user == user.pk
    is_new = is_recent(time.monotonic() - row.clock.at, MAX_AGE)
    return kept.token if is_same and is_new and is_fresh(row, row.clock.now()) else None


def forget(request: HttpRequest | None = None) -> None:
    """Forget the token that `request`, by default the current one, keeps: it has been taken, its
    row changes, or the view has ended."""
    request = request or current_request()
    if request is not None:
        vars(request).pop(_KEPT, None)
