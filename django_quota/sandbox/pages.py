"""The home page, profile pictures and error pages."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from .api import ApiError

__all__ = [
    "avatar",
    "bad_request",
    "csrf_failure",
    "error_page",
    "home",
    "not_found",
    "server_error",
]

AVATAR_COLOURS = ["#0f766e", "#9333ea", "#b45309", "#be123c", "#1d4ed8", "#4d7c0f"]


def home(request: HttpRequest) -> HttpResponse:
    """Redirect to the overview."""
    return redirect("overview")


def avatar(request: HttpRequest, name: str) -> HttpResponse:
    """Return a profile picture: the first letter of the name on a coloured square."""
    colour = AVATAR_COLOURS[sum(map(ord, name)) % len(AVATAR_COLOURS)]
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64" width="64" height="64">'
        f'<rect width="64" height="64" fill="{colour}"/>'
        '<text x="32" y="43" text-anchor="middle" font-family="system-ui, sans-serif" '
        f'font-size="32" font-weight="600" fill="#fff">{name[0].upper()}</text></svg>'
    )
    return HttpResponse(
        svg, content_type="image/svg+xml", headers={"Cache-Control": "public, max-age=3600"}
    )


def _render_error(
    request: HttpRequest, status: int, code: str, title: str, message: str
) -> HttpResponse:
    """Return an error as a page for browsers, and as JSON for other clients."""
    if "text/html" not in request.headers.get("Accept", ""):
        return ApiError(status, code, message).response()
    return error_page(request, code=code, title=title, message=message, status=status)


def error_page(request: HttpRequest, *, status: int = 400, **context: Any) -> HttpResponse:
    """Render an error page.

    ``context`` has ``code``, ``title`` and ``message``, and optionally ``details``, a list of
    labels and values, and ``advice`` for the developer of the app.
    """
    return render(request, "quota_sandbox/error.html", context, status=status)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Return a 404."""
    message = "There is nothing at this address."
    return _render_error(request, 404, "not_found", "Page not found", message)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Return a 400."""
    message = "The request is malformed."
    return _render_error(request, 400, "bad_request", "Bad request", message)


def server_error(request: HttpRequest) -> HttpResponse:
    """Return a 500."""
    message = "The sandbox failed. The terminal it runs in shows the error."
    return _render_error(request, 500, "internal_error", "Something went wrong", message)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Return a 403 for a form that is older than the session or comes from another site."""
    message = "This form has expired. Go back, reload the page and try again."
    return _render_error(request, 403, "form_expired", "This form has expired", message)
