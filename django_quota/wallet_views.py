"""The signed-in user's wallet over HTTP: what is in it, how to fill it, how to disconnect it.

A browser's navigation gets a page or a redirect, a fetch() gets JSON; nothing here is cached by
anybody.
"""

from functools import partial, wraps
from typing import Any, Protocol
from urllib.parse import urljoin

from django.contrib.auth.decorators import login_not_required
from django.core import signing
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from . import accounts, messages, money, revocation, wallet
from .answers import answer
from .conf import get_settings
from .exceptions import InsufficientScope, NotConnected, QuotaError, RequestRefused
from .models import QuotaToken
from .transport import within
from .web import (
    is_sent_on,
    outside_transactions,
    posted,
    private,
    safe_next,
    send_on,
    single,
    url_with,
    wants_page,
)

__all__ = ["balance", "checkout", "disconnect", "me", "packages", "status"]

#: Seconds that a person who disconnects waits for Quota to hear of it.
REVOKE_WAIT = 3
#: Seconds between two looks at whether a payment has arrived, and how many there are.
LOOK_EVERY, MAX_LOOKS = 2, 15
#: Statuses of an app that has no checkout.
NO_CHECKOUT = (404, 405)
#: Why a person is on the page of packages: what the address may say.
_REASONS = {
    "insufficient_credits": _("Your credits do not cover what you have just asked for."),
    "no_checkout": _("Credits cannot be bought from here. You can buy them at Quota itself."),
}
CENT_IN_CREDITS = money.CREDITS_PER_DOLLAR // 100


class _View(Protocol):
    def __call__(self, request: HttpRequest) -> HttpResponseBase: ...


def _wallet_view(view: _View) -> _View:
    """For signed-in users, outside of any transaction, private; errors become answers."""

    @wraps(view)
    def wrapped(request: HttpRequest) -> HttpResponseBase:
        if not request.user.is_authenticated:
            return answer(request, NotConnected("Nobody is signed in."))
        try:
            return private(view(request))
        except QuotaError as error:
            return answer(request, error)

    # Protected as Django's own login is: also in a project that has no CSRF middleware.
    return outside_transactions(login_not_required(csrf_protect(wrapped)))


@require_GET
@login_not_required
def me(request: HttpRequest) -> HttpResponseBase:
    """GET me: who is signed in with Quota: `{"user": {sub, email, name, picture} | null}`."""
    account = accounts.account_of(request.user) if request.user.is_authenticated else None
    user = account and {
        "sub": account.external_id,
        "email": account.email,
        "name": account.name,
        "picture": account.picture,
    }
    return private(JsonResponse({"user": user}))


@require_GET
@login_not_required
def status(request: HttpRequest) -> HttpResponseBase:
    """GET status: `{"connected": bool, "needs_sign_in": bool, "scopes": [...]}`, without asking
    Quota."""
    row = QuotaToken.objects.for_user(request.user).first()
    return private(
        JsonResponse(
            {
                "connected": row is not None and not row.needs_sign_in,
                "needs_sign_in": row is not None and row.needs_sign_in,
                "scopes": row.scope.split() if row else [],
            }
        )
    )


@require_GET
@_wallet_view
def balance(request: HttpRequest) -> HttpResponseBase:
    """GET balance: `{"connected", "balance", "display", "state"}`, for scripts that keep a shown
    balance up to date. `balance` is in credits, null where no wallet is linked."""
    found = wallet.get_balance(request.user)
    return JsonResponse(
        {
            "connected": True,
            "balance": found.credits,
            "display": found.display,
            "state": found.state,
        }
    )


@require_GET
@_wallet_view
def packages(request: HttpRequest) -> HttpResponseBase:
    """GET packages: the credit packages on offer, as a page with a button for each, or as JSON.

    The payment page comes back here where the person has cancelled.
    """
    wallet.forget_checkout(request.user, single(request, "package") or "")
    try:
        offers = [_offer(package) for package in wallet.get_packages()]
        unavailable = False
    except QuotaError:
        if not wants_page(request):
            raise
        offers, unavailable = [], True
    if not wants_page(request):
        return JsonResponse({"packages": offers})
    state, found = wallet.balance_for_page(request.user)
    context = {
        "packages": offers,
        "unavailable": unavailable,
        "checkout_url": reverse("django_quota:checkout"),
        "next": safe_next(request, single(request, "next")),
        "reason": _REASONS.get(single(request, "reason") or ""),
        "topup_url": get_settings().topup_url,
        "balance_state": state,
        "balance": found,
    }
    return render(request, "django_quota/packages.html", context)


def _offer(package: wallet.Package) -> dict[str, Any]:
    return {
        "id": package.id,
        "name": package.name,
        "price_cents": package.price_cents,
        "price": money.format_usd(package.price_cents * CENT_IN_CREDITS),
        "balance_display": package.balance_display,
    }


@require_http_methods(["GET", "POST"])
@_wallet_view
def checkout(request: HttpRequest) -> HttpResponseBase:
    """POST checkout (package_id, next): off to the payment page; JSON callers get its URL.

    GET checkout is where the payment page comes back to. Where the app has no checkout, or the
    token may not use it, Quota's own page is linked to.
    """
    if request.method == "GET":
        return _returned(request)
    next_url = safe_next(request, posted(request, "next"))
    # Of the site's own name, where that is fixed.
    here = partial(urljoin, get_settings().redirect_uri or request.build_absolute_uri())
    which = {"package": posted(request, "package_id")}
    try:
        payment_page = wallet.create_checkout(
            request.user,
            which["package"],
            success_url=here(
                url_with("django_quota:checkout", next=next_url, **_before(request), **which)
            ),
            cancel_url=here(url_with("django_quota:packages", next=next_url, **which)),
        )
    except (RequestRefused, InsufficientScope) as error:
        return _not_sold(request, error, next_url)
    if is_sent_on(request):
        return send_on(request, payment_page)
    return JsonResponse({"checkout_url": payment_page})


def _not_sold(
    request: HttpRequest, error: RequestRefused | InsufficientScope, next_url: str
) -> HttpResponseBase:
    """This package is no longer on offer, or nothing is, to this app or this token."""
    wallet.forget_packages()
    no_checkout = isinstance(error, InsufficientScope) or error.status in NO_CHECKOUT
    if is_sent_on(request):
        reason = "no_checkout" if no_checkout else ""
        return send_on(request, url_with("django_quota:packages", reason=reason, next=next_url))
    if no_checkout:
        body = {"error": messages.error_body(error, ""), "topup_url": get_settings().topup_url}
        return JsonResponse(body, status=403)
    raise error


def _before(request: HttpRequest) -> dict[str, str]:
    """The balance before the purchase, for `_returned` to see it rise. Signed: else a link could
    make this site wait for what never comes."""
    _state, balance = wallet.balance_for_page(request.user)
    return {} if balance is None else {"before": _signer().sign(str(balance.credits))}


def _returned(request: HttpRequest) -> HttpResponseBase:
    """The balance is read anew; until it has risen, because the payment is still on its way to
    Quota, a page waits and looks again."""
    next_url = safe_next(request, single(request, "next"))
    wallet.forget_checkout(request.user, single(request, "package") or "")
    wallet.forget_balance(request.user)
    looks = min(_number(single(request, "looks")), MAX_LOOKS)
    if looks < MAX_LOOKS and not _has_risen(request):
        again = {"before": single(request, "before") or "", "looks": str(looks + 1)}
        again_url = url_with("django_quota:checkout", next=next_url, **again)
        context = {"again_url": again_url, "next": next_url}
        response = render(request, "django_quota/paid.html", context)
        response["Refresh"] = f"{LOOK_EVERY};url={again_url}"
        return response
    return HttpResponseRedirect(next_url or "/")


def _signer() -> signing.Signer:
    return signing.Signer(salt="django_quota.paid")


def _has_risen(request: HttpRequest) -> bool:
    """Also where that cannot be known: then there is nothing to wait for."""
    try:
        before = _signer().unsign(single(request, "before") or "")
    except signing.BadSignature:
        return True
    _state, balance = wallet.balance_for_page(request.user)
    if balance is None:
        return True
    if before == str(None):  # the first purchase makes the wallet
        return balance.credits is not None
    return balance.credits is None or balance.credits > int(before)


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 4 else 0


@require_POST
@_wallet_view
def disconnect(request: HttpRequest) -> HttpResponseBase:
    """POST disconnect (next): wipe this user's tokens here, and have Quota revoke them."""
    accounts.disconnect(request.user)
    wallet.forget_balance(request.user)
    with within(REVOKE_WAIT):
        revocation.revoke_pending(limit=3)  # what does not work now is left to quota_prune
    if is_sent_on(request):
        return send_on(request, safe_next(request, posted(request, "next")) or "/")
    return JsonResponse({"connected": False})
