"""The token that was read for the check before a view, for the first call of the view.

Without it, a view with `@quota_required` would read the row twice within milliseconds, and async
code would enter a thread for each.
"""

import time
from typing import Any

from django_quota.models import QuotaToken
from django_quota.secret import Secret

from .clock import is_recent
from .decisions import is_fresh
from .payer import current_request
from .places import database_of

#: Seconds for which the token is used.
MAX_AGE = 1
#: The attribute of the request that stores the user, the row and the token.
_KEPT = "_django_quota_first_look"


def keep(user: Any, row: QuotaToken, token: str) -> None:
    """Store `row` and its access token, read for `user` just now, on the current request."""
    request = current_request()
    if request is not None:
        setattr(request, _KEPT, (user, row, Secret(token)))


def take(user: Any) -> str | None:
    """Return the token that was kept for `user` in the current request, and forget it.

    None if there is none, or if it is about to expire. Only for the same user object: in another
    database or schema, an equal one is another person. It makes no query. Raises what `database_of`
    raises.
    """
    kept: tuple[Any, QuotaToken, str] | None = getattr(current_request(), _KEPT, None)
    if kept is None or kept[0] is not user:
        return None
    forget()
    _user, row, token = kept
    is_same = row.account_user == user.pk and row._state.db == database_of(user)
    is_new = is_recent(time.monotonic() - row.clock.at, MAX_AGE)
    return token if is_same and is_new and is_fresh(row, row.clock.now()) else None


def forget() -> None:
    """Forget the kept token, because this request changes it."""
    request = current_request()
    if request is not None:
        vars(request).pop(_KEPT, None)
