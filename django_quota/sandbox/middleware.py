"""Middleware that sets security headers and simulates latency and failures."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from .api import ApiError
from .knobs import Failure
from .state import state

__all__ = ["KnobMiddleware", "PageSecurityMiddleware"]

GetResponse = Callable[[HttpRequest], HttpResponseBase]

# There is no form-action, because Chromium also applies it to redirects, and the sign-in and
# consent forms redirect to the app.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)
FAILURE_CODES = {
    402: "insufficient_credits",
    403: "insufficient_scope",
    429: "rate_limit_exceeded",
    502: "upstream_error",
    503: "provider_unavailable",
    504: "gateway_timeout",
}


class PageSecurityMiddleware:
    """Set Content-Security-Policy and X-Frame-Options on every response."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        response.headers["X-Frame-Options"] = "DENY"
        return response


class KnobMiddleware:
    """Simulate latency and failures, and log requests, except those under /sandbox."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        path = request.path
        if path == "/sandbox" or path.startswith(("/sandbox/", "/static/")):
            return self.get_response(request)
        log = state.request_log
        state.wait_out_latency(path)
        failure = state.take_failure(path)
        if failure is None or failure.after:
            response = self.get_response(request)
        if failure is not None:
            response = _failure_response(failure)
        state.log_request(log, request.method or "", path, response.status_code)
        return response


def _failure_response(failure: Failure) -> HttpResponse:
    if failure.body is not None:
        response = HttpResponse(failure.body, status=failure.status)
    else:
        code = FAILURE_CODES.get(failure.status, "provider_unavailable")
        error = ApiError(
            failure.status, code, "The sandbox simulates this failure; see /sandbox/settings."
        )
        response = error.response()
    if failure.retry_after is not None:
        response.headers["Retry-After"] = str(failure.retry_after)
    return response
