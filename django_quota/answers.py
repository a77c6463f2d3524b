"""Errors of this package that are normal states, as answers to a browser.

A navigation is redirected to where the person can do something about it; a fetch() gets JSON with
the same error and the address to go to.
"""

import logging

from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect, JsonResponse
from django.urls import reverse

from . import accounts, messages
from .exceptions import (
    ConfigurationError,
    InsufficientCredits,
    InsufficientScope,
    NotConnected,
    ProviderUnavailable,
    QuotaError,
    RateLimited,
    ReauthenticationRequired,
    RefreshImpossibleHere,
)
from .web import private, url_with, wants_page

__all__ = ["answer"]

logger = logging.getLogger("django_quota.answers")

#: What happens on any day, and the person can mend.
_ORDINARY = (NotConnected, ReauthenticationRequired, InsufficientCredits, InsufficientScope)


def answer(request: HttpRequest, error: QuotaError) -> HttpResponseBase:
    """What to answer where `error` has come up.

    =========================  ===============================  =================================
    Error                      A page                           fetch()
    =========================  ===============================  =================================
    NotConnected,              sign in (connect, for a user     401, `login_url`
    ReauthenticationRequired   without any), then come back
    InsufficientCredits        buy credits, then come back      402, `topup_url`
    InsufficientScope          the error page                   403, `login_url`
    RateLimited,               the error page                   503, with Retry-After if known
    ProviderUnavailable, ...
    any other                  the error page                   502
    =========================  ===============================  =================================

    All but the first four kinds go into the log, under a reference that the answer has, too.
    """
    reference = "" if isinstance(error, _ORDINARY) else _logged(error)
    return private(
        _page(request, error, reference)
        if wants_page(request)
        else _json(request, error, reference)
    )


def _logged(error: QuotaError) -> str:
    """The reference under which the log says what an operator should know."""
    reference = messages.new_reference()
    level = logging.WARNING if isinstance(error, ProviderUnavailable) else logging.ERROR
    logger.log(level, "%s: %s [%s]", error.code, error, reference)
    return reference


def _page(request: HttpRequest, error: QuotaError, reference: str) -> HttpResponseBase:
    back = request.get_full_path() if request.method == "GET" else ""
    if isinstance(error, NotConnected | ReauthenticationRequired):
        return HttpResponseRedirect(url_with(_sign_in(request), next=back))
    if isinstance(error, InsufficientCredits):
        return HttpResponseRedirect(url_with("django_quota:packages", next=back))
    code = messages.code_of(error)
    return HttpResponseRedirect(
        url_with("django_quota:error", quota_error=code, quota_ref=reference, next=back)
    )


def _json(request: HttpRequest, error: QuotaError, reference: str) -> HttpResponseBase:
    names = {"code": error.code} | ({"reference": reference} if reference else {})
    body: dict[str, object] = {"error": names}
    if isinstance(error, NotConnected | ReauthenticationRequired):
        return JsonResponse(body | {"login_url": reverse(_sign_in(request))}, status=401)
    if isinstance(error, InsufficientCredits):
        return JsonResponse(body | {"topup_url": reverse("django_quota:packages")}, status=402)
    if isinstance(error, InsufficientScope):
        return JsonResponse(body | {"login_url": reverse("django_quota:start")}, status=403)
    later = isinstance(error, ProviderUnavailable | ConfigurationError | RefreshImpossibleHere)
    response = JsonResponse(body, status=503 if later else 502)
    if isinstance(error, RateLimited) and error.retry_after is not None:
        response["Retry-After"] = str(error.retry_after)
    return response


def _sign_in(request: HttpRequest) -> str:
    """Connect, for a user without any Quota account: a sign-in would leave their session."""
    stranger = request.user.is_authenticated and accounts.account_of(request.user) is None
    return "django_quota:connect" if stranger else "django_quota:start"
