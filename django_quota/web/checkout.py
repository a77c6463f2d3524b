"""The views that sell credits: the packages on offer, the way to the payment page, and back."""

import time
from typing import Any
from urllib.parse import urljoin

from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_GET
from django.views.generic import View

from django_quota import money
from django_quota.conf import get_settings
from django_quota.exceptions import InsufficientScope, QuotaError, RequestRefused
from django_quota.oidc.wallet_api import Package
from django_quota.tokens.clock import is_recent
from django_quota.tokens.payer import get_payer, user_of
from django_quota.tokens.wallet_name import wallet_of
from django_quota.wallet import balances, purchases

from . import messages
from .redirects import redirect_browser, safe_next, url_with, user_home_url
from .requests import expects_redirect, form_value, query_value, wants_page
from .sessions import discard_changes
from .wallet_view import wallet_view

#: Key of the purchase that this browser started last, in the session.
SESSION_KEY = "django_quota_purchase"
#: Seconds for which another click on the same package leads to the same payment page.
REPEAT_SECONDS = 30
#: The longest URL of a payment page that the session keeps: if the session is a cookie, browsers
#: drop one of more than 4096 characters silently.
MAX_URL_LENGTH = 1000
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
    try:
        offers = [_package_json(package) for package in purchases.get_packages()]
        unavailable = False
    except QuotaError:
        if not wants_page(request):
            raise
        offers, unavailable = [], True
    if not wants_page(request):
        return JsonResponse({"packages": offers})
    shown = purchases.balance_for_page(user_of(request))
    if SESSION_KEY in request.session:
        # The person may have cancelled the purchase, so the next click starts another one.
        _note_purchase(request, None)
    context = {
        "packages": offers,
        "unavailable": unavailable,
        "checkout_url": reverse("django_quota:checkout"),
        "connect_url": url_with("django_quota:connect", next=request.get_full_path()),
        "next": safe_next(request, query_value(request, "next")),
        "home_url": user_home_url(),
        "reason": _REASONS.get(query_value(request, "reason") or ""),
        "topup_url": get_settings().topup_url,
        "balance_state": shown.state,
        "balance": shown.balance,
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


@method_decorator(wallet_view, name="dispatch")
class CheckoutView(View):
    """The way to the payment page, and back."""

    http_method_names = ["get", "post"]

    def post(self, request: HttpRequest) -> HttpResponseBase:
        """POST checkout (package_id, next): redirect to the payment page; a fetch() gets its URL.

        The payment page leads back to GET checkout. If the app has no checkout, or the token may
        not use it, the answer links to Quota's own page.
        """
        package_id = form_value(request, "package_id")
        next_url = safe_next(request, form_value(request, "next"))
        try:
            payment_page = _payment_page(request, package_id, next_url)
        except (RequestRefused, InsufficientScope) as error:
            return _refused_checkout(request, error, next_url)
        if expects_redirect(request):
            return redirect_browser(request, payment_page)
        return JsonResponse({"checkout_url": payment_page})

    def get(self, request: HttpRequest) -> HttpResponseBase:
        """GET checkout (next): read the balance from Quota. Until it has risen, show a page that
        waits and looks again, because the payment may still be on its way to Quota."""
        next_url = safe_next(request, query_value(request, "next"))
        user = user_of(request)
        balances.forget_balance(user)
        purchase = request.session.get(SESSION_KEY, {})
        if (
            purchase.get("wallet") != wallet_of(user)
            or purchase["looks"] >= MAX_POLLS
            or _has_risen(purchase, purchases.balance_for_page(user).balance)
        ):
            _note_purchase(request, None)
            return HttpResponseRedirect(next_url or user_home_url())
        # The payment page is done with, so another click starts another purchase.
        looks = purchase["looks"] + 1
        _note_purchase(request, {**purchase, "looks": looks, "payment_page": None})
        again_url = url_with("django_quota:checkout", next=next_url)
        context = {"again_url": again_url, "next": next_url, "home_url": user_home_url()}
        response = render(request, "django_quota/paid.html", context)
        response["Refresh"] = f"{POLL_SECONDS};url={again_url}"
        return response


def _payment_page(request: HttpRequest, package_id: str, next_url: str) -> str:
    """Start a purchase, note it in the session, and return the URL of its payment page. For a
    double click, return that of the click before."""
    user = get_payer(request)
    wallet = wallet_of(user)
    before = request.session.get(SESSION_KEY, {})
    is_same = (before.get("wallet"), before.get("package")) == (wallet, package_id)
    is_double_click = is_same and is_recent(time.time() - before["started_at"], REPEAT_SECONDS)
    if is_double_click and before["payment_page"] is not None:
        return str(before["payment_page"])
    # Absolute URLs have the site's own host name if QUOTA_REDIRECT_URI fixes it.
    site = get_settings().redirect_uri or request.build_absolute_uri()
    balance = purchases.balance_for_page(user).balance
    payment_page = purchases.create_checkout(
        user,
        package_id,
        success_url=urljoin(site, url_with("django_quota:checkout", next=next_url)),
        cancel_url=urljoin(site, url_with("django_quota:packages", next=next_url)),
    )
    purchase = {
        "wallet": wallet,
        "package": package_id,
        "payment_page": payment_page if len(payment_page) <= MAX_URL_LENGTH else None,
        "started_at": time.time(),
        "looks": 0,
        **({} if balance is None else {"balance_before": balance.credits}),
    }
    _note_purchase(request, purchase)
    return payment_page


def _note_purchase(request: HttpRequest, purchase: dict[str, Any] | None) -> None:
    """Write `purchase` into the session as it is now: while Quota was asked, another request may
    have saved something in it."""
    if not request.session.modified:
        session = discard_changes(request.session)
        if not session.keys():
            return  # it has ended, and another one must not take the place of what came after it
        request.session = session
    if purchase is None:
        request.session.pop(SESSION_KEY, None)
    else:
        request.session[SESSION_KEY] = purchase


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


def _has_risen(purchase: dict[str, Any], balance: balances.Balance | None) -> bool:
    """True if the balance has risen, or if that cannot be known, as waiting would not help."""
    if balance is None or "balance_before" not in purchase:
        return True
    before = purchase["balance_before"]
    if before is None:  # there was no wallet: the first purchase creates it
        return balance.credits is not None
    return balance.credits is None or balance.credits > before
