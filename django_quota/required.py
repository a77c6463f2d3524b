"""What `@quota_required` and the permission for Django REST framework ask of a user."""

from typing import Any

from . import tokens
from .exceptions import InsufficientScope
from .models import QuotaToken

__all__ = ["arequire_wallet", "require_wallet"]


def require_wallet(user: Any, scopes: frozenset[str] = frozenset()) -> None:
    """See to it that `user`'s wallet can be billed: the token has `scopes`, and is renewed if it
    has expired.

    Raises what `get_access_token` raises, and InsufficientScope, which names what is missing.
    """
    tokens.get_access_token(user)
    if scopes:
        _require_scopes(scopes, QuotaToken.objects.for_user(user).first())


async def arequire_wallet(user: Any, scopes: frozenset[str] = frozenset()) -> None:
    """`require_wallet` for async code."""
    await tokens.aget_access_token(user)
    if scopes:
        _require_scopes(scopes, await QuotaToken.objects.for_user(user).afirst())


def _require_scopes(scopes: frozenset[str], row: QuotaToken | None) -> None:
    missing = scopes.difference(row.scope.split() if row else ())
    if missing:
        # RFC 6750 section 3.1: what to ask the user's consent for.
        raise InsufficientScope(
            "The user's token lacks a scope that this view needs; put it into QUOTA_SCOPES and let "
            "them sign in again.",
            scope=" ".join(sorted(missing)),
        )
