"""Checks of the users that a first sign-in creates."""

from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.checks import CheckMessage, Warning
from django.core.exceptions import ValidationError
from django.db.models import EmailField
from django.http import HttpRequest
from django.utils.module_loading import import_string

from django_quota.accounts import email_column, username_for
from django_quota.backends import QuotaBackend
from django_quota.conf import Settings

from .common import is_path_of_subclass


def check_user_model(quota: Settings) -> Iterator[CheckMessage]:
    """Check that this package can create a user, unless the project's own backend does."""
    if not quota.create_user or not _package_creates_users():
        return
    model = get_user_model()
    username: Any = model._meta.get_field(model.USERNAME_FIELD)
    try:
        username.to_python(username_for("sub"))
    except ValidationError:
        yield Warning(
            f"{model.__name__}.{username.name}, its USERNAME_FIELD, takes no text, so a first "
            "sign-in cannot create a user: it ends in account_conflict.",
            hint="Override get_username or create_user in a subclass of QuotaBackend, or set "
            "QUOTA_CREATE_USER = False.",
            id="django_quota.W011",
        )
    email = email_column(model)
    if isinstance(username, EmailField) and email is not None and email.name != username.name:
        yield Warning(
            f"{model.__name__} has two e-mail addresses: Quota's verified address is stored in "
            f"{email.name} (EMAIL_FIELD), and {username.name} (USERNAME_FIELD) gets a "
            "generated name that is not an address.",
            hint="Override get_username in a subclass of QuotaBackend.",
            id="django_quota.W012",
        )


def _package_creates_users() -> bool:
    """True if a QuotaBackend of the project uses both `get_username` and `create_user` of ours."""
    paths = settings.AUTHENTICATION_BACKENDS
    backends = [import_string(path) for path in paths if is_path_of_subclass(path, QuotaBackend)]
    ours = (QuotaBackend.get_username, QuotaBackend.create_user)
    return any((backend.get_username, backend.create_user) == ours for backend in backends)


def check_sign_up(quota: Settings) -> Iterator[CheckMessage]:
    """Check that a site that is closed to new users does not create one at a first sign-in."""
    if quota.create_user and _is_sign_up_closed():
        yield Warning(
            "Sign-up is closed on this site, but a first sign-in with Quota creates a user.",
            hint="Set QUOTA_CREATE_USER = False, or silence this check if that is intended.",
            id="django_quota.W013",
        )


def _is_sign_up_closed() -> bool:
    """True if django-registration or django-allauth is set up to refuse new users."""
    if getattr(settings, "REGISTRATION_OPEN", True) is False:
        return True
    if not apps.is_installed("allauth.account"):
        return False
    try:
        adapter = import_string("allauth.account.adapter.get_adapter")()
        return not adapter.is_open_for_signup(HttpRequest())
    except Exception:
        return False  # the project's adapter needs a real request, or cannot be imported
