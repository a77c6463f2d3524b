"""The views that sell credits: the packages on offer, the way to the payment page, and back."""

from functools import partial
from typing import Any
from urllib.parse import urljoin

from django.core import signing
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_GET, require_http_methods

from django_quota import money
from django_quota.conf import get_settings
from django_quota.exceptions import InsufficientScope, QuotaError, RequestRefused
from django_quota.oidc.wallet_api import Package
from django_quota.tokens.payer import get_payer, user_of
from django_quota.wallet import balances, purchases

from . import messages
from .redirects import redirect_browser, safe_next, url_with, user_home_url
from .requests import expects_redirect, form_value, query_value, wants_page
from .wallet_view import wallet_view

#: Seconds between two looks at the balance after a payment, and how many looks there are.
POLL_SECONDS, MAX_POLLS = 2, 15
#: Statuses with which Quota refuses an app that has no checkout.
NO_CHECKOUT_STATUSES = (404, 405)
#: Sentences that `?reason=` puts on the page of packages.
_REASONS = {
    "insufficient_credits": _("Your credits do not cover what you have just asked for."),
    "no_checkout": _("Credits cannot be bought from here. You can buy them at Quota itself."),
}
CREDITS_PER_CENT = money.CREDITS_PER_DOLLAR // 100


@require_GET
@wallet_view
def packages(request: HttpRequest) -> HttpResponseBase:
    """GET packages: the credit packages on offer, as a page with a button for each, or as JSON.

    The payment page leads back here when the person cancels.
    """
    purchases.forget_checkout(user_of(request), query_value(request, "package") or "")
    try:
        offers = [_package_json(package) for package in purchases.get_packages()]
        unavailable = False
    except QuotaError:
        if not wants_page(request):
            raise
        offers, unavailable = [], True
    if not wants_page(request):
        return JsonResponse({"packages": offers})
    state, balance = purchases.balance_for_page(user_of(request))
    context = {
        "packages": offers,
        "unavailable": unavailable,
        "checkout_url": reverse("django_quota:checkout"),
        "next": safe_next(request, query_value(request, "next")),
        "home_url": user_home_url(),
        "reason": _REASONS.get(query_value(request, "reason") or ""),
        "topup_url": get_settings().topup_url,
        "balance_state": state,
        "balance": balance,
    }
    return render(request, "django_quota/packages.html", context)


def _package_json(package: Package) -> dict[str, Any]:
    return {
        "id": package.id,
        "name": package.name,
        "price_cents": package.price_cents,
        "price": money.format_usd(package.price_cents * CREDITS_PER_CENT),
        "balance_display": package.balance_display,
    }


@require_http_methods(["GET", "POST"])
@wallet_view
def checkout(request: HttpRequest) -> HttpResponseBase:
    """POST checkout (package_id, next): redirect to the payment page; a fetch() gets its URL.

    The payment page leads back to GET checkout. If the app has no checkout, or the token may not
    use it, the answer links to Quota's own page.
    """
    if request.method == "GET":
        return _return_from_payment(request)
    user = get_payer(request)
    next_url = safe_next(request, form_value(request, "next"))
    # Absolute URLs have the site's own host name if QUOTA_REDIRECT_URI fixes it.
    absolute = partial(urljoin, get_settings().redirect_uri or request.build_absolute_uri())
    query = {"package": form_value(request, "package_id")}
    try:
        payment_page = purchases.create_checkout(
            user,
            query["package"],
            success_url=absolute(
                url_with(
                    "django_quota:checkout", next=next_url, **_balance_before(request), **query
                )
            ),
            cancel_url=absolute(url_with("django_quota:packages", next=next_url, **query)),
        )
    except (RequestRefused, InsufficientScope) as error:
        return _refused_checkout(request, error, next_url)
    if expects_redirect(request):
        return redirect_browser(request, payment_page)
    return JsonResponse({"checkout_url": payment_page})


def _refused_checkout(
    request: HttpRequest, error: RequestRefused | InsufficientScope, next_url: str
) -> HttpResponseBase:
    """The package is no longer on offer, or this app or this token can buy none at all."""
    purchases.forget_packages()
    no_checkout = isinstance(error, InsufficientScope) or error.status in NO_CHECKOUT_STATUSES
    if expects_redirect(request):
        reason = "no_checkout" if no_checkout else ""
        url = url_with("django_quota:packages", reason=reason, next=next_url)
        return redirect_browser(request, url)
    if no_checkout:
        body = {"error": messages.error_body(error, ""), "topup_url": get_settings().topup_url}
        return JsonResponse(body, status=403)
    raise error


def _balance_before(request: HttpRequest) -> dict[str, str]:
    """The query parameter with the balance before the purchase, so that `_has_risen` can compare.

    It is signed: with any other value, a link could make this site wait for nothing.
    """
    _state, balance = purchases.balance_for_page(user_of(request))
    return {} if balance is None else {"before": _signer().sign(str(balance.credits))}


def _return_from_payment(request: HttpRequest) -> HttpResponseBase:
    """Read the balance from Quota. Until it has risen, show a page that waits and looks again,
    because the payment may still be on its way to Quota."""
    next_url = safe_next(request, query_value(request, "next"))
    purchases.forget_checkout(user_of(request), query_value(request, "package") or "")
    balances.forget_balance(user_of(request))
    looks = min(_small_number(query_value(request, "looks")), MAX_POLLS)
    if looks >= MAX_POLLS or _has_risen(request):
        return HttpResponseRedirect(next_url or user_home_url())
    query = {"before": query_value(request, "before") or "", "looks": str(looks + 1)}
    again_url = url_with("django_quota:checkout", next=next_url, **query)
    context = {"again_url": again_url, "next": next_url, "home_url": user_home_url()}
    response = render(request, "django_quota/paid.html", context)
    response["Refresh"] = f"{POLL_SECONDS};url={again_url}"
    return response


def _signer() -> signing.Signer:
    return signing.Signer(salt="django_quota.paid")


def _has_risen(request: HttpRequest) -> bool:
    """True if the balance has risen, or if that cannot be known, as waiting would not help."""
    try:
        before = _signer().unsign(query_value(request, "before") or "")
    except signing.BadSignature:
        return True
    _state, balance = purchases.balance_for_page(user_of(request))
    if balance is None:
        return True
    if before == str(None):  # there was no wallet: the first purchase creates it
        return balance.credits is not None
    return balance.credits is None or balance.credits > int(before)


def _small_number(text: str | None) -> int:
    """The number in `text`, 0 if it is not one of at most three digits."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 4 else 0
