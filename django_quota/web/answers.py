"""Turns errors of this package into responses.

A navigation, also one by htmx, is redirected to a page where the person can fix the error. A
fetch() gets JSON with the error and the URL of that page.
"""

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.utils import timezone

from django_quota import accounts
from django_quota.exceptions import (
    ImpersonationRefused,
    InsufficientCredits,
    InsufficientScope,
    NotConnected,
    ProviderUnavailable,
    QuotaError,
    ReauthenticationRequired,
    RefreshRefused,
    SpendingLimitReached,
    new_reference,
)
from django_quota.models import QuotaToken
from django_quota.tokens.clock import is_recent
from django_quota.tokens.payer import user_of
from django_quota.wallet.balances import forget_balance

from . import messages, outcomes
from .redirects import (
    current_page,
    referring_page,
    site_login_url,
    url_for_script,
    url_with,
)
from .requests import is_htmx, wants_page
from .responses import add_private_headers, log_as_warning
from .signed_scopes import sign_scope

R = TypeVar("R", bound=HttpResponse)

logger = logging.getLogger("django_quota.answers")

#: How long ago a sign-in may be that has "just" happened.
RECENT_SIGN_IN = timedelta(minutes=1)
#: Errors that the person can fix, so they are not logged.
_FIXED_BY_PERSON = (
    NotConnected,
    ReauthenticationRequired,
    InsufficientCredits,
    InsufficientScope,
    ImpersonationRefused,
)


@dataclass(frozen=True, kw_only=True)
class ErrorDetails:
    """The parts of a response to an error, in whatever form it is sent."""

    #: HTTP status of a response that is not a redirect.
    status: int
    #: JSON in the shape of Quota's errors (quota-protocol section 9), with `login_url` or
    #: `topup_url`: a path, or the complete URL for a script on another host.
    body: dict[str, Any]
    #: The page where the person can fix the error.
    url: str
    headers: dict[str, str]


def error_response(request: HttpRequest, error: QuotaError) -> HttpResponseBase:
    """Return the response to a request that raised `error`; docs/errors.rst has a table.

    An error that the person cannot fix is logged, with a reference that the response contains, too.
    """
    details = error_details(request, error)
    response: HttpResponse
    if is_htmx(request):
        # With the error's status: htmx follows this header in any response but a redirect.
        response = HttpResponse(status=details.status, headers={"HX-Redirect": details.url})
    elif wants_page(request):
        response = HttpResponse(status=302, headers={"Location": details.url})
    else:
        response = JsonResponse(details.body, status=details.status, headers=details.headers)
    return add_private_headers(log_outage_as_warning(response, request, error))


def log_outage_as_warning(response: R, request: HttpRequest, error: QuotaError) -> R:
    """Return `response` to `error`. If Quota or the database is away, it is logged as a warning, so
    that Django does not mail it to ADMINS."""
    is_outage = isinstance(error, ProviderUnavailable) and response.status_code >= 500
    return log_as_warning(response, request) if is_outage else response


def error_details(request: HttpRequest, error: QuotaError) -> ErrorDetails:
    """Return the parts of the response to `error`, and log it unless the person can fix it.

    Reads the user from the database.
    """
    reference = "" if isinstance(error, _FIXED_BY_PERSON) else _log_error(error)
    url, links = _url_and_links(request, error, reference)
    return ErrorDetails(
        status=error.http_status,
        body={"error": messages.error_body(error, reference)}
        | {name: url_for_script(request, address) for name, address in links.items()},
        url=url,
        headers={} if error.retry_after is None else {"Retry-After": str(error.retry_after)},
    )


def is_redirect_loop(request: HttpRequest, url: str, extra_scopes: str) -> bool:
    """Return True if a sign-in for `extra_scopes` has just led to `url`, which sent the person to
    sign in again. Log it, as the project may not know about the loop."""
    is_loop = outcomes.is_round_trip(
        request.session, url, extra_scopes, has_next="next" in request.GET
    ) and _has_just_signed_in(request)
    if is_loop:
        logger.warning(
            "a page redirects the user %s to sign in again right after a sign-in: they lack a "
            "permission. Use raise_exception=True of permission_required to answer 403 instead.",
            user_of(request).pk,
        )
    return is_loop


def _log_error(error: QuotaError) -> str:
    """Log `error` for the operator, and return the reference that stands in the log."""
    reference = new_reference()
    is_warning = isinstance(error, ProviderUnavailable | SpendingLimitReached)
    level = logging.WARNING if is_warning else logging.ERROR
    logger.log(level, "%s: %s [%s]", error.code, error, reference)
    return reference


def _url_and_links(
    request: HttpRequest, error: QuotaError, reference: str
) -> tuple[str, dict[str, str]]:
    """Return the URL that a browser is redirected to, and the links in the JSON for a script.

    A link leads back to the page of the script, not to the URL that the script has called.
    """
    back, page = current_page(request), referring_page(request)
    error_query = {"quota_error": messages.code_of(error), "quota_ref": reference}
    if isinstance(error, NotConnected | ReauthenticationRequired):
        links = {"login_url": _sign_in_url(request, next=page)}
        if isinstance(error, ReauthenticationRequired) and _has_just_signed_in(request):
            # Another sign-in would not help either: Quota would answer at once, in a loop.
            return url_with("django_quota:error", **error_query, next=back), links
        return _sign_in_url(request, next=back), links
    if isinstance(error, InsufficientCredits):
        forget_balance(user_of(request))  # the cached balance is wrong
        view = "django_quota:packages"
        links = {"topup_url": url_with(view, next=page)}
        return url_with(view, reason=error.code, next=back), links
    if isinstance(error, InsufficientScope):
        scope = sign_scope(error.scope)
        links = {"login_url": _sign_in_url(request, scope=scope, next=page)}
        if scope and not _is_granted(request, error.scope):
            return _sign_in_url(request, scope=scope, next=back), links
        # The missing scope is unknown, or already granted: asking for it would lead here again.
        return url_with("django_quota:error", **error_query, next=back), links
    error_url = url_with("django_quota:error", **error_query, quota_retry="page", next=back)
    if isinstance(error, RefreshRefused):
        return error_url, {"login_url": _sign_in_url(request, next=page)}
    return error_url, {}


def _sign_in_url(request: HttpRequest, **query: str) -> str:
    """Return the URL where a wallet can be had.

    A visitor signs in: at the site's own page where it has one, which may ask for a second factor.
    A user without a Quota account connects a wallet, because a sign-in would end their session.
    """
    user = user_of(request)
    if not user.is_authenticated:
        own = site_login_url(request, query.get("next", ""))
        return own or url_with("django_quota:start", **query)
    connects = accounts.account_of(user) is None
    return url_with("django_quota:connect" if connects else "django_quota:start", **query)


def _has_just_signed_in(request: HttpRequest) -> bool:
    """Return True if the user signed in within RECENT_SIGN_IN and their tokens are still active."""
    row = QuotaToken.objects.for_user(user_of(request)).select_related("account").first()
    if row is None or row.needs_sign_in or row.account.last_sign_in_at is None:
        return False
    return is_recent(timezone.now() - row.account.last_sign_in_at, RECENT_SIGN_IN)


def _is_granted(request: HttpRequest, scope: str) -> bool:
    """Return True if the user's token has `scope`, as far as Quota has told us."""
    row = QuotaToken.objects.for_user(user_of(request)).first()
    return row is not None and set(scope.split()) <= set(row.scope.split())
