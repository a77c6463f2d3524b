"""The check behind `@quota_required` and the permission for Django REST framework."""

from typing import Any

from django.http import HttpRequest

from django_quota.exceptions import InsufficientScope
from django_quota.models import QuotaToken
from django_quota.tokens import access


def require_wallet(user: Any, scopes: frozenset[str] = frozenset()) -> None:
    """Check that `user`'s wallet can be billed and the token has `scopes`; renew an expired token.

    Raises the errors of `get_access_token`, and InsufficientScope, which names the missing scopes.
    """
    access.check_wallet(user)
    if scopes:
        _require_scopes(scopes, QuotaToken.objects.for_user(user).first())


async def arequire_wallet(request: HttpRequest, scopes: frozenset[str] = frozenset()) -> None:
    """`require_wallet` for async code and the payer of `request`."""
    user = await access.acheck_wallet(request)
    if scopes:
        _require_scopes(scopes, await QuotaToken.objects.for_user(user).afirst())


def _require_scopes(scopes: frozenset[str], row: QuotaToken | None) -> None:
    missing = scopes.difference(row.scope.split() if row else ())
    if missing:
        # The error names the scopes to ask the user for (RFC 6750 section 3.1).
        raise InsufficientScope(
            "The user's token lacks a scope that this view needs; put it into QUOTA_SCOPES and let "
            "them sign in again.",
            scope=" ".join(sorted(missing)),
        )
