"""The token row that was read for the check before a view, for the first call of the view.

Without it, a view with `@quota_required` would read the row twice within milliseconds, and async
code would enter a thread for each.
"""

import time
from typing import Any

from django_quota.models import QuotaToken

from .clock import is_recent
from .payer import current_request
from .places import database_of

#: Seconds for which the row is used.
MAX_AGE = 1
#: The attribute of the request that stores the user and the row.
_KEPT = "_django_quota_first_look"


def keep(user: Any, row: QuotaToken) -> None:
    """Store `row`, which was read for `user` just now, on the current request."""
    request = current_request()
    if request is not None:
        setattr(request, _KEPT, (user, row))


def take(user: Any) -> QuotaToken | None:
    """Return the row that was kept for `user` in the current request, and forget it; else None.

    Only for the same user object: in another database or schema, an equal one is another person.
    It makes no query. Raises what `database_of` raises.
    """
    kept: tuple[Any, QuotaToken] | None = getattr(current_request(), _KEPT, None)
    if kept is None or kept[0] is not user:
        return None
    row = kept[1]
    forget()
    is_same = row.account_user == user.pk and row._state.db == database_of(user)
    return row if is_same and is_recent(time.monotonic() - row.clock.at, MAX_AGE) else None


def forget() -> None:
    """Forget the kept row, because this request changes it."""
    request = current_request()
    if request is not None:
        vars(request).pop(_KEPT, None)
