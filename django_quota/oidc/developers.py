"""Quota's API for developers: the registration of OAuth apps."""

from typing import Any

from django.views.decorators.debug import sensitive_variables

from django_quota.conf import get_settings

from .transport import call_api


@sensitive_variables()
def save_app(session_token: str, app: dict[str, Any], *, client_id: str | None) -> dict[str, Any]:
    """Register an OAuth app, or change the one with `client_id`. Return Quota's description of it.

    `session_token` is a developer's `sess_...`, `app` the app's fields (quota-protocol section 3).
    Raises what `call_api` raises.
    """
    url = f"{get_settings().base_url}/developers/apps" + (f"/{client_id}" if client_id else "")
    method = "PATCH" if client_id else "POST"
    return call_api(method, url, bearer=session_token, json_body=app)
