"""A Content-Security-Policy that allows nothing but the site's own files."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

__all__ = ["strict_csp"]

POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'"


def strict_csp(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """A middleware. What a page does against the policy, the browser's console reports."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response["Content-Security-Policy"] = POLICY
        return response

    return middleware
