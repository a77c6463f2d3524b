"""Views under /sandbox: they show and change the knobs, the users and the log."""

from __future__ import annotations

import functools
import ipaddress
import json
from collections.abc import Callable
from typing import Any

from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from . import ledger
from .api import ApiError, bad_request, check_email, json_view, read_json, read_text
from .models import Application, SigningKey, User, Webhook
from .seed import DEMO_PASSWORD
from .state import state
from .webhook_delivery import notify

__all__ = ["overview", "request_log", "reset_settings", "rotate_keys", "sandbox_settings", "users"]

MAX_BALANCE_CREDITS = 10**15
View = Callable[..., HttpResponse]


def local_only(*methods: str) -> Callable[[View], View]:
    """Decorate a JSON view to accept requests from this machine only.

    Requests that a browser sends for a page of another site have an ``Origin`` header; they are
    rejected, too.
    """

    def decorate(view: View) -> View:
        @json_view(*methods)
        @functools.wraps(view)
        def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            origin = request.headers.get("Origin")
            if not _is_local(request) or origin not in (None, state.origin):
                raise ApiError(
                    403, "forbidden", "/sandbox accepts requests from this machine only."
                )
            return view(request, *args, **kwargs)

        return wrapper

    return decorate


def _is_local(request: HttpRequest) -> bool:
    return ipaddress.ip_address(request.META["REMOTE_ADDR"]).is_loopback


@local_only("GET", "PATCH")
def sandbox_settings(request: HttpRequest) -> JsonResponse:
    """Return or change the knobs (:class:`django_quota.sandbox.knobs.Knobs`)."""
    if request.method == "PATCH":
        try:
            state.update_knobs(read_json(request))
        except ValueError as error:
            raise bad_request(str(error), "GET /sandbox/settings returns all settings.") from None
    return JsonResponse(state.knobs.as_dict())


@local_only("POST")
def reset_settings(request: HttpRequest) -> JsonResponse:
    """Set every knob to its default."""
    state.reset_knobs()
    return JsonResponse(state.knobs.as_dict())


@local_only("POST")
def rotate_keys(request: HttpRequest) -> JsonResponse:
    """Create a key that signs new id_tokens. The old keys stay published."""
    return JsonResponse({"kid": SigningKey.rotate().kid}, status=201)


@local_only("GET", "DELETE")
def request_log(request: HttpRequest) -> JsonResponse:
    """Return or clear the log of requests."""
    if request.method == "DELETE":
        state.clear_requests()
    return JsonResponse({"requests": state.requests()})


@local_only("GET", "POST")
def users(request: HttpRequest) -> JsonResponse:
    """List all users, or create or update the user with the given e-mail address."""
    if request.method == "POST":
        user, created = _save_user(read_json(request))
        return JsonResponse({"user": _describe(user)}, status=201 if created else 200)
    return JsonResponse({"users": [_describe(user) for user in User.objects.order_by("created")]})


def _save_user(data: dict[str, Any]) -> tuple[User, bool]:
    email = read_text(data, "email", max_length=254).lower()
    check_email(email)
    name, balance = data.get("name"), data.get("balance")
    password, verified = data.get("password"), data.get("email_verified")
    if name is not None and (not isinstance(name, str) or len(name) > 200):
        raise bad_request("name must be a string of up to 200 characters.")
    if balance is not None and not (type(balance) is int and abs(balance) <= MAX_BALANCE_CREDITS):
        raise bad_request(f"balance must be an integer of credits within ±{MAX_BALANCE_CREDITS}.")
    if password is not None and not (isinstance(password, str) and 0 < len(password) <= 1024):
        raise bad_request("password must be a non-empty string.")
    if verified is not None and not isinstance(verified, bool):
        raise bad_request("email_verified must be true or false.")
    with transaction.atomic():
        user = User.objects.filter(email=email).first()
        created = user is None
        if user is None:
            user = User.objects.add(email, password or DEMO_PASSWORD, email_verified=True)
        elif password is not None:
            user.set_password(password)
        if name is not None:
            user.name = name
        if verified is not None:
            user.email_verified = verified
        user.save(update_fields=["name", "email_verified", "password"])
        if balance is not None:
            ledger.set_balance(user, balance, "Set at /sandbox/users")
            notify("balance.updated", user, None, new_balance=balance)
    return user, created


def _describe(user: User) -> dict[str, Any]:
    return {
        "id": str(user.pk),
        "email": user.email,
        "name": user.name,
        "email_verified": user.email_verified,
        "balance": user.balance,
        "reserved": user.reserved,
    }


@require_safe
def overview(request: HttpRequest) -> HttpResponse:
    """Render a page with the wallets, apps, webhooks, knobs and latest requests."""
    if not _is_local(request):
        return HttpResponse("/sandbox accepts requests from this machine only.\n", status=403)
    context = {
        "origin": state.origin,
        "users": User.objects.order_by("created"),
        "applications": Application.objects.select_related("user").order_by("-created"),
        "webhooks": Webhook.objects.order_by("created"),
        # As JSON, like in the body of a PATCH.
        "knobs": {name: json.dumps(value) for name, value in state.knobs.as_dict().items()},
        "requests": state.requests()[:-26:-1],
        "demo_password": DEMO_PASSWORD,
    }
    return render(request, "quota_sandbox/overview.html", context)
