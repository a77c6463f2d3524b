"""Errors of this package, most of which are part of any day, as answers to a browser.

A navigation is redirected to where the person can do something about it, and so is htmx; a fetch()
gets JSON with the same error and the address to go to.
"""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.utils import timezone

from . import accounts, messages
from .balances import forget_balance
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
from .models import QuotaToken
from .web import current_page, is_htmx, private, referring_page, sign_scope, url_with, wants_page

__all__ = ["ErrorAnswer", "answer", "error_answer"]

logger = logging.getLogger("django_quota.answers")

#: In which a person who was sent to sign in is back.
A_MOMENT = timedelta(minutes=1)
#: What happens on any day, and the person can mend.
_ORDINARY = (NotConnected, ReauthenticationRequired, InsufficientCredits, InsufficientScope)


@dataclass(frozen=True, kw_only=True)
class ErrorAnswer:
    """What there is to say of an error, whatever form the answer has."""

    #: HTTP status, for who is not redirected.
    status: int
    #: Quota's own shape of an error (quota-protocol section 9), with `login_url` or `topup_url`.
    body: dict[str, Any]
    #: Where the person can do something about it.
    url: str
    headers: dict[str, str]


def answer(request: HttpRequest, error: QuotaError) -> HttpResponseBase:
    """What to answer where `error` has come up.

    =========================  ===============================  =================================
    Error                      A page, or htmx                  fetch()
    =========================  ===============================  =================================
    NotConnected,              sign in (connect, for a user     401, `login_url`
    ReauthenticationRequired   without any), then come back;
                               the error page right after a
                               sign-in that has not helped
    InsufficientCredits        buy credits, then come back      402, `topup_url`
    InsufficientScope          sign in and allow it, then come  403, `login_url`
                               back; the error page where that
                               would not help
    RateLimited                the error page                   429, Retry-After if known
    ProviderUnavailable, ...   the error page                   503
    any other                  the error page                   502
    =========================  ===============================  =================================

    All but the first four kinds go into the log, under a reference that the answer has, too.
    """
    said = error_answer(request, error)
    response: HttpResponse
    if is_htmx(request):
        # With its own status: htmx looks at this header in every answer that is no redirect.
        response = HttpResponse(status=said.status, headers={"HX-Redirect": said.url})
    elif wants_page(request):
        response = HttpResponse(status=302, headers={"Location": said.url})
    else:
        response = JsonResponse(said.body, status=said.status, headers=said.headers)
    return private(response)


def error_answer(request: HttpRequest, error: QuotaError) -> ErrorAnswer:
    """What there is to say of `error`; logged, unless the person can mend it.

    It asks the database who the user is.
    """
    reference = "" if isinstance(error, _ORDINARY) else _logged(error)
    url, link = _way_on(request, error, reference)
    return ErrorAnswer(
        status=_status(error),
        body={"error": messages.error_body(error, reference)} | link,
        url=url,
        headers=_headers(error),
    )


def _logged(error: QuotaError) -> str:
    """The reference under which the log says what an operator should know."""
    reference = messages.new_reference()
    level = logging.WARNING if isinstance(error, ProviderUnavailable) else logging.ERROR
    logger.log(level, "%s: %s [%s]", error.code, error, reference)
    return reference


def _way_on(request: HttpRequest, error: QuotaError, reference: str) -> tuple[str, dict[str, str]]:
    """Where a person is sent; and the same for a script, whose page is what they come back to."""
    back, page = current_page(request), referring_page(request)
    on_error_page = {"quota_error": messages.code_of(error), "quota_ref": reference}
    if isinstance(error, NotConnected | ReauthenticationRequired):
        view = _sign_in(request)
        link = {"login_url": url_with(view, next=page)}
        if isinstance(error, ReauthenticationRequired) and _is_signed_in_anew(request):
            # It has not helped, and Quota would let them pass without a word: in a circle.
            return url_with("django_quota:error", **on_error_page, next=back), link
        return url_with(view, next=back), link
    if isinstance(error, InsufficientCredits):
        forget_balance(request.user)  # whatever is shown, Quota has just said otherwise
        view = "django_quota:packages"
        link = {"topup_url": url_with(view, next=page)}
        return url_with(view, reason=error.code, next=back), link
    if isinstance(error, InsufficientScope):
        view, scope = _sign_in(request), sign_scope(error.scope)
        consent = {"login_url": url_with(view, scope=scope, next=page)}
        if scope and not _is_granted(request, error.scope):
            return url_with(view, scope=scope, next=back), consent
        # Nobody knows which one is missing, or it was allowed already: asking for it would lead
        # here again, and again.
        return url_with("django_quota:error", **on_error_page, next=back), consent
    return url_with("django_quota:error", **on_error_page, quota_retry="page", next=back), {}


def _sign_in(request: HttpRequest) -> str:
    """Connect, for a user without any Quota account: a sign-in would leave their session."""
    stranger = request.user.is_authenticated and accounts.account_of(request.user) is None
    return "django_quota:connect" if stranger else "django_quota:start"


def _is_signed_in_anew(request: HttpRequest) -> bool:
    """Has the user signed in a moment ago, and got tokens that nobody has ended here since?"""
    row = QuotaToken.objects.for_user(request.user).select_related("account").first()
    if row is None or row.needs_sign_in or row.account.last_sign_in_at is None:
        return False
    signed_in_at: datetime = row.account.last_sign_in_at
    return timezone.now() < signed_in_at + A_MOMENT


def _is_granted(request: HttpRequest, scope: str) -> bool:
    """Does the user's token have `scope`, as far as Quota has said?"""
    row = QuotaToken.objects.for_user(request.user).first()
    return row is not None and set(scope.split()) <= set(row.scope.split())


def _status(error: QuotaError) -> int:
    statuses: list[tuple[type[QuotaError] | tuple[type[QuotaError], ...], int]] = [
        ((NotConnected, ReauthenticationRequired), 401),
        (InsufficientCredits, 402),
        (InsufficientScope, 403),
        (RateLimited, 429),
        ((ProviderUnavailable, ConfigurationError, RefreshImpossibleHere), 503),
    ]
    return next((status for kinds, status in statuses if isinstance(error, kinds)), 502)


def _headers(error: QuotaError) -> dict[str, str]:
    if isinstance(error, RateLimited) and error.retry_after is not None:
        return {"Retry-After": str(error.retry_after)}
    return {}
