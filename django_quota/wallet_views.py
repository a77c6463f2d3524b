"""The signed-in user's wallet over HTTP: what is in it, how to fill it, how to disconnect it.

A browser's navigation gets a page or a redirect, a fetch() gets JSON; nothing here is cached by
anybody.
"""

from functools import wraps
from typing import Any, Protocol

from django.contrib.auth.decorators import login_not_required
from django.db import transaction
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from . import accounts, money, revocation, wallet
from .answers import answer
from .exceptions import NotConnected, QuotaError, RequestRefused
from .models import QuotaToken
from .transport import within
from .web import private, safe_next, single, url_with, wants_page

__all__ = ["balance", "checkout", "disconnect", "me", "packages", "status"]

#: Seconds that a person who disconnects waits for Quota to hear of it.
REVOKE_WAIT = 3
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
    return transaction.non_atomic_requests(login_not_required(csrf_protect(wrapped)))


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
    row = QuotaToken.objects.for_user(request.user).with_secrets().first()
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
            "state": "no_wallet" if found.credits is None else "available",
        }
    )


@require_GET
@_wallet_view
def packages(request: HttpRequest) -> HttpResponseBase:
    """GET packages: the credit packages on offer, as a page with a button for each, or as JSON."""
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

    GET checkout is where the payment page comes back to: the balance is read anew.
    """
    if request.method == "GET":
        wallet.forget_balance(request.user)
        return HttpResponseRedirect(safe_next(request, single(request, "next")) or "/")
    next_url = safe_next(request, request.POST.get("next"))
    here = request.build_absolute_uri
    try:
        payment_page = wallet.create_checkout(
            request.user,
            request.POST.get("package_id", ""),
            success_url=here(url_with("django_quota:checkout", next=next_url)),
            cancel_url=here(url_with("django_quota:packages", next=next_url)),
        )
    except RequestRefused:  # a package that is no longer on offer
        wallet.forget_packages()
        if not wants_page(request):
            raise
        return HttpResponseRedirect(url_with("django_quota:packages", next=next_url))
    if wants_page(request):
        return HttpResponseRedirect(payment_page)
    return JsonResponse({"checkout_url": payment_page})


@require_POST
@_wallet_view
def disconnect(request: HttpRequest) -> HttpResponseBase:
    """POST disconnect (next): wipe this user's tokens here, and have Quota revoke them."""
    accounts.disconnect(request.user)
    wallet.forget_balance(request.user)
    with within(REVOKE_WAIT):
        revocation.revoke_pending(limit=3)  # what does not work now is left to quota_prune
    if wants_page(request):
        return HttpResponseRedirect(safe_next(request, request.POST.get("next")) or "/")
    return JsonResponse({"connected": False})
