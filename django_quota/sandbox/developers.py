"""Registration of OAuth apps: POST /developers/apps, GET and PATCH /developers/apps/<id>."""

from __future__ import annotations

import uuid
from typing import Any

from django.http import HttpRequest, JsonResponse

from .accounts import require_developer
from .api import ApiError, bad_request, json_view, read_json, read_text
from .models import Application
from .scopes import SCOPES
from .uris import check_uri

__all__ = ["app_detail", "apps"]

MAX_URIS = 50
FIELDS = {"name", "redirect_uris", "allowed_scopes", "post_logout_redirect_uris"}


def _read_uris(data: dict[str, Any], field: str, *, required: bool) -> str:
    uris = data.get(field, [])
    if not isinstance(uris, list) or len(uris) > MAX_URIS or (required and not uris):
        least = 1 if required else 0
        raise bad_request(f"{field} must be a list of {least} to {MAX_URIS} URIs.")
    return " ".join(dict.fromkeys(check_uri(field, uri) for uri in uris))


def _read_scopes(data: dict[str, Any]) -> list[str]:
    scopes = data.get("allowed_scopes")
    if not isinstance(scopes, list) or not scopes:
        raise bad_request("allowed_scopes must be a list of scopes.")
    unknown = [scope for scope in scopes if not isinstance(scope, str) or scope not in SCOPES]
    if unknown:
        raise bad_request(
            f"allowed_scopes: {unknown[0]!r:.100} is not a scope.",
            f"The scopes are {' '.join(SCOPES)}.",
            "invalid_scope",
        )
    return list(dict.fromkeys(scopes))


def _read_fields(data: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """Validate the named fields of an app, and return them as model fields. Raises a 400."""
    fields: dict[str, Any] = {}
    if "name" in names:
        fields["name"] = read_text(data, "name")
    if "redirect_uris" in names:
        fields["redirect_uris"] = _read_uris(data, "redirect_uris", required=True)
    if "allowed_scopes" in names:
        fields["allowed_scopes"] = _read_scopes(data)
    if "post_logout_redirect_uris" in names:
        fields["post_logout_redirect_uris"] = _read_uris(
            data, "post_logout_redirect_uris", required=False
        )
    return fields


def _describe(application: Application) -> dict[str, Any]:
    return {
        "id": str(application.pk),
        "name": application.name,
        "client_id": application.client_id,
        "redirect_uris": application.redirect_uris.split(),
        "allowed_scopes": application.allowed_scopes,
        "post_logout_redirect_uris": application.post_logout_redirect_uris.split(),
    }


@json_view("POST")
def apps(request: HttpRequest) -> JsonResponse:
    """Register an app. Only this reply contains its client secret.

    With ``token_endpoint_auth_method: "none"`` (RFC 7591), the app is a public client without a
    secret.
    """
    session = require_developer(request)
    data = read_json(request)
    method = data.get("token_endpoint_auth_method", "client_secret_post")
    if method not in ("client_secret_post", "none"):
        raise bad_request('token_endpoint_auth_method must be "client_secret_post" or "none".')
    application, secret = Application.add(
        owner=session.user, public=method == "none", **_read_fields(data, FIELDS)
    )
    reply = _describe(application)
    if secret:
        reply["client_secret"] = secret
    return JsonResponse(reply, status=201, headers={"Cache-Control": "no-store"})


def _find_application(identifier: str) -> Application | None:
    try:
        lookup: dict[str, Any] = {"pk": uuid.UUID(identifier)}
    except ValueError:
        lookup = {"client_id": identifier}
    application: Application | None = Application.objects.filter(**lookup).first()
    return application


@json_view("GET", "PATCH")
def app_detail(request: HttpRequest, identifier: str) -> JsonResponse:
    """Return or change the app with this id or client_id."""
    session = require_developer(request)
    application = _find_application(identifier)
    if application is None:
        raise ApiError(404, "not_found", "There is no app with this id.")
    if application.user_id != session.user.pk:
        raise ApiError(403, "forbidden", "This app belongs to another developer.")
    if request.method == "PATCH":
        data = read_json(request)
        names = FIELDS & data.keys()
        if not names:
            raise bad_request(
                f"Nothing to change. Send one or more of {', '.join(sorted(FIELDS))}."
            )
        for name, value in _read_fields(data, names).items():
            setattr(application, name, value)
        application.save()
    return JsonResponse(_describe(application))
