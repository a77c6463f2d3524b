"""Accounts: the sign-in page, and the JSON API for developers under /auth/."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.hashers import make_password
from django.contrib.auth.views import LoginView
from django.db import IntegrityError, transaction
from django.forms import CharField, EmailField, EmailInput, PasswordInput
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone

from . import ledger
from .api import ApiError, bad_request, check_email, json_view, read_bearer_token, read_json
from .models import Application, DeveloperSession, User
from .seed import DEMO_PASSWORD, DEMO_USERS
from .tokens import checksum, generate_session_token

__all__ = ["SignInView", "auth_login", "auth_logout", "auth_me", "register", "require_developer"]

SESSION_LIFETIME = timedelta(hours=24)
WELCOME_CREDITS = 1_000_000
MIN_PASSWORD_LENGTH = 8
MAX_PASSWORD_LENGTH = 1_024


class SignInForm(AuthenticationForm):
    """Django's sign-in form, with an e-mail address instead of a user name."""

    username = EmailField(
        label="E-mail",
        widget=EmailInput(attrs={"autocomplete": "username", "autofocus": True}),
    )
    password = CharField(
        label="Password",
        strip=False,
        max_length=MAX_PASSWORD_LENGTH,
        widget=PasswordInput(attrs={"autocomplete": "current-password"}),
    )
    error_messages = {
        "invalid_login": "The e-mail address and password do not match. Check both and try again.",
        "inactive": "This account is disabled.",
    }


class SignInView(LoginView):
    """The sign-in page of Quota. It names the app if one sent the user here."""

    template_name = "quota_sandbox/sign_in.html"
    authentication_form = SignInForm

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Add the app that the user signs in for, and the demo users."""
        context = super().get_context_data(**kwargs)
        query = parse_qs(urlsplit(self.get_redirect_url()).query)
        client_id = query.get("client_id", [""])[0]
        return context | {
            "application": Application.objects.filter(client_id=client_id).first(),
            "demo_users": DEMO_USERS,
            "demo_password": DEMO_PASSWORD,
        }


def _read_credentials(request: HttpRequest) -> tuple[str, str]:
    data = read_json(request)
    email, password = data.get("email"), data.get("password")
    if not isinstance(email, str) or not isinstance(password, str):
        raise bad_request("email and password must be strings.")
    if len(password) > MAX_PASSWORD_LENGTH:
        raise bad_request(f"The password must have at most {MAX_PASSWORD_LENGTH} characters.")
    return email.strip().lower(), password


def _create_session(user: User, status: int) -> JsonResponse:
    token = generate_session_token()
    session = DeveloperSession.objects.create(
        token_checksum=checksum(token), user=user, expires_at=timezone.now() + SESSION_LIFETIME
    )
    reply = {
        "user": _describe(user),
        "session_token": token,
        "expires_at": session.expires_at.isoformat(),
    }
    return JsonResponse(reply, status=status, headers={"Cache-Control": "no-store"})


def _describe(user: User) -> dict[str, Any]:
    return {"id": str(user.pk), "email": user.email, "balance": user.balance}


@json_view("POST")
def register(request: HttpRequest) -> JsonResponse:
    """Create an account for a developer, and sign in to it."""
    email, password = _read_credentials(request)
    check_email(email)
    if len(password) < MIN_PASSWORD_LENGTH:
        raise bad_request(
            f"The password must have at least {MIN_PASSWORD_LENGTH} characters.",
            code="weak_password",
        )
    try:
        with transaction.atomic():
            user = User.objects.add(email, password)
            ledger.set_balance(user, WELCOME_CREDITS, "Welcome credits")
    except IntegrityError:
        raise ApiError(
            409,
            "email_exists",
            "This e-mail address is already registered.",
            "Use POST /auth/login.",
        ) from None
    return _create_session(user, 201)


@json_view("POST")
def auth_login(request: HttpRequest) -> JsonResponse:
    """Sign in a developer."""
    email, password = _read_credentials(request)
    user = User.objects.filter(email=email, is_active=True).first()
    if user is None:
        make_password(password)  # Take as long as for a wrong password.
    if user is None or not user.check_password(password):
        raise ApiError(401, "invalid_credentials", "The e-mail address and password do not match.")
    return _create_session(user, 200)


def require_developer(request: HttpRequest) -> DeveloperSession:
    """Return the developer's session that the request's bearer token belongs to. Raises a 401."""
    session = DeveloperSession.find(read_bearer_token(request))
    if session is None:
        raise ApiError(
            401,
            "invalid_api_key",
            "This endpoint requires the session token of a developer.",
            "Get one from POST /auth/login; it starts with sess_.",
            {"WWW-Authenticate": "Bearer"},
        )
    return session


@json_view("GET")
def auth_me(request: HttpRequest) -> JsonResponse:
    """Return the developer that the session token belongs to."""
    return JsonResponse({"user": _describe(require_developer(request).user)})


@json_view("POST")
def auth_logout(request: HttpRequest) -> HttpResponse:
    """Sign out a developer."""
    require_developer(request).delete()
    return JsonResponse({"success": True})
