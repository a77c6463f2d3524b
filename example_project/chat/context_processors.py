"""What every page of the example knows."""

from typing import Any

from django.http import HttpRequest


def quota_account(request: HttpRequest) -> dict[str, Any]:
    """The signed-in person at Quota (name, e-mail, picture), or None."""
    if not request.user.is_authenticated:
        return {"quota_account": None}
    return {"quota_account": request.user.quota_accounts.first()}
