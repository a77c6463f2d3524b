"""Helpers for responses: the decorator of our views, headers for caches, and log levels."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from django.contrib.auth.decorators import login_not_required
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.log import log_response
from django.views.decorators.csrf import csrf_protect

from .requests import is_prefetch

R = TypeVar("R", bound=HttpResponseBase)
H = TypeVar("H", bound=HttpResponse)
V = TypeVar("V", bound=Callable[..., Any])


def personal_view(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Decorate a view whose response is for one person only.

    No cache keeps the response. A prefetch does not call the view, as it would use up a code from
    Quota, for example. No transaction is open during a call to Quota. LoginRequiredMiddleware does
    not apply, as the view itself decides who must be signed in. Forms are protected from other
    sites also without the CSRF middleware, as in Django's own login view.
    """

    @wraps(view)
    def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if (response := _prefetch_response(request)) is None:
            response = view(request, *args, **kwargs)
        return add_private_headers(response)

    return outside_transactions(login_not_required(csrf_protect(wrapped)))


def outside_transactions(view: V) -> V:
    """Exempt `view` from ATOMIC_REQUESTS on all databases: no transaction may be open during a call
    to Quota, and what is saved before the call must be committed."""
    for alias in connections:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


def _prefetch_response(request: HttpRequest) -> HttpResponseBase | None:
    """Return the response to a prefetch, which must change nothing; None for any other request.

    It is a 204; but a 403 if the prefetch is a navigation (Chromium's speculation rules), because
    Chromium would use a 204 for the click, which then does nothing. After a 403 it asks again.
    """
    if not is_prefetch(request):
        return None
    is_navigation = request.headers.get("Sec-Fetch-Mode") == "navigate"
    return HttpResponse(status=403 if is_navigation else 204)


def log_as_warning(response: H, request: HttpRequest) -> H:
    """Log `response`, an intended 503, as a warning. Django would log it as an error and mail it to
    ADMINS: during an outage of Quota, one mail for each request."""
    log_response(
        "%s: %s",
        response.reason_phrase,
        request.path,
        response=response,
        request=request,
        level="warning",
    )
    return response


def add_private_headers(response: R) -> R:
    """Keep `response` out of caches, its URL from other sites (RFC 9700 section 4.2.4), and its
    page out of frames (section 4.16).

    With `no-referrer`, browsers would post the page's forms with `Origin: null`, which Django
    refuses.
    """
    response["Cache-Control"] = "no-store, private"
    response["Referrer-Policy"] = "same-origin"
    response["X-Frame-Options"] = "DENY"
    return response


def mark_personal(request: HttpRequest) -> None:
    """Mark `request`: its response shows data of its user, so no cache may show it to others.

    `cache_page` decides before any middleware sees the response, and a template tag has only the
    request. So clear Django's flag for `cache_page`; QuotaMiddleware sets the headers for other
    caches (`is_personal`).
    """
    request._cache_update_cache = False  # type: ignore[attr-defined]
    request._quota_is_personal = True  # type: ignore[attr-defined]


def is_personal(request: HttpRequest) -> bool:
    """True after `mark_personal`."""
    return getattr(request, "_quota_is_personal", False)
