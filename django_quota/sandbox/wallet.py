"""The wallet: its balance, the packages of credits, and the payment page."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_http_methods

from . import ledger
from .api import bad_request, json_view, read_json, require_token
from .models import Application, Checkout
from .state import state
from .webhook_delivery import notify

__all__ = ["PACKAGES", "balance", "checkout_page", "create_checkout", "packages"]

CREDITS_PER_CENT = 10_000


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package of credits for sale, with its price in US cents."""

    id: str
    name: str
    price_cents: int

    @property
    def credits(self) -> int:
        """The number of credits in the package."""
        return self.price_cents * CREDITS_PER_CENT

    @property
    def price(self) -> str:
        """The price in dollars, for display."""
        return f"${self.price_cents // 100}.{self.price_cents % 100:02}"


PACKAGES = {
    package.id: package
    for package in (
        Package(id="starter", name="Starter", price_cents=500),
        Package(id="basic", name="Basic", price_cents=1_000),
        Package(id="plus", name="Plus", price_cents=2_500),
        Package(id="pro", name="Pro", price_cents=5_000),
    )
}


@json_view("GET")
def balance(request: HttpRequest) -> JsonResponse:
    """Return the balance of the token's user."""
    user = require_token(request, "credits.read").user
    reply = {
        "wallet": "oauth_user",
        "balance": user.balance,
        "plan": user.plan,
        "user_id": str(user.pk),
        "billing_mode": "user",
    }
    return JsonResponse(reply, headers={"Cache-Control": "no-store"})


@json_view("GET")
def packages(request: HttpRequest) -> JsonResponse:
    """Return the packages for sale. Needs no token."""
    listed = [
        {
            "id": package.id,
            "name": package.name,
            "price_cents": package.price_cents,
            "credits": package.credits,
            "balance_display": package.price,
        }
        for package in PACKAGES.values()
    ]
    return JsonResponse({"packages": listed})


def _split_origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def _read_return_url(data: dict[str, Any], field: str, application: Application) -> str:
    """Return the URL that the payment page redirects to. Raises a 400.

    It must have the origin of one of the app's redirect URIs, so that the payment page is not an
    open redirect.
    """
    url = data.get(field)
    allowed = {_split_origin(uri) for uri in application.redirect_uris.split()}
    try:
        known = isinstance(url, str) and url.isascii() and _split_origin(url) in allowed
    except ValueError:
        known = False
    if not known or not str(url).isprintable():
        raise bad_request(
            f"{field} must be a URL on the origin of one of the app's redirect URIs.",
            "Register a redirect URI of that origin with PATCH /developers/apps/:id.",
        )
    return str(url)


@json_view("POST")
def create_checkout(request: HttpRequest) -> JsonResponse:
    """Create a checkout for the token's user, and return the URL of its payment page."""
    token = require_token(request)
    data = read_json(request)
    package_id = data.get("package_id")
    package = PACKAGES.get(package_id) if isinstance(package_id, str) else None
    if package is None:
        raise bad_request("package_id must be the id of a package.", "GET /v1/packages lists them.")
    checkout = Checkout.objects.create(
        user=token.user,
        application=token.application,
        package_id=package.id,
        price_cents=package.price_cents,
        credits=package.credits,
        success_url=_read_return_url(data, "success_url", token.application),
        cancel_url=_read_return_url(data, "cancel_url", token.application),
    )
    return JsonResponse({"checkout_url": f"{state.origin}/checkout/{checkout.pk}"})


@require_http_methods(["GET", "POST"])
def checkout_page(request: HttpRequest, checkout_id: uuid.UUID) -> HttpResponse:
    """Render the payment page, and accept its form: the user pays or cancels, once."""
    checkout = Checkout.objects.select_related("user", "application").filter(pk=checkout_id).first()
    if checkout is None:
        raise Http404
    if request.method == "POST":
        if request.POST.get("decision") == "pay":
            _pay(checkout)
        else:
            _cancel(checkout)
        checkout.refresh_from_db(fields=["status"])
        paid = checkout.status == Checkout.Status.PAID
        return HttpResponseRedirect(checkout.success_url if paid else checkout.cancel_url)
    context = {"checkout": checkout, "package": PACKAGES[checkout.package_id]}
    return render(request, "quota_sandbox/checkout.html", context)


def _close_checkout(checkout: Checkout, status: Checkout.Status) -> bool:
    """Set the final status; return False if another request did so first."""
    open_checkout = Checkout.objects.filter(pk=checkout.pk, status=Checkout.Status.OPEN)
    return bool(open_checkout.update(status=status))


def _pay(checkout: Checkout) -> None:
    with transaction.atomic():
        if _close_checkout(checkout, Checkout.Status.PAID):
            description = f"Package {checkout.package_id}"
            app = checkout.application
            balance = ledger.add_purchase(checkout.user, checkout.credits, description, app)
            notify("balance.updated", checkout.user, app.user, new_balance=balance)


def _cancel(checkout: Checkout) -> None:
    _close_checkout(checkout, Checkout.Status.CANCELLED)
