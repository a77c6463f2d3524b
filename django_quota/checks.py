"""`manage.py check`: one message for each thing that is missing or wrong, and how to mend it.

Ids: E001 a required setting is missing, E002 a setting is malformed, E003 FIELD_ENCRYPTION_KEY,
E004 the backend is not installed, E005 QUOTA_ERROR_URL leads nowhere, W001 an unknown QUOTA_
name, W002 SameSite=Strict, W003 no QuotaMiddleware, W004 a cache in the transactions of requests.
"""

from typing import Any

from django.conf import settings
from django.core.cache.backends.db import DatabaseCache
from django.core.checks import CheckMessage, Error, Warning
from django.urls import NoReverseMatch
from django.utils.module_loading import import_string

from . import conf
from .backends import QuotaBackend
from .exceptions import ConfigurationError
from .fields import crypter
from .middleware import QuotaMiddleware
from .web import url_with

__all__ = ["check_encryption_key", "check_installation", "check_settings"]

BACKEND = "django_quota.backends.QuotaBackend"
MIDDLEWARE = "django_quota.middleware.QuotaMiddleware"


def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """Every `QUOTA_*` setting that is missing, malformed or unknown."""
    messages: list[CheckMessage] = [
        Error(
            str(error),
            hint=conf.REQUIRED_HELP if name in conf.REQUIRED else None,
            id="django_quota.E001" if conf.is_missing(name) else "django_quota.E002",
        )
        for name, error in conf.problems().items()
    ]
    messages += [
        Warning(
            f"{name} is not a setting of django_quota.",
            hint="Is it misspelt? The settings are listed in the README.",
            id="django_quota.W001",
        )
        for name in conf.unknown_names()
    ]
    return messages


def check_encryption_key(**kwargs: Any) -> list[CheckMessage]:
    """FIELD_ENCRYPTION_KEY, without which no token can be stored."""
    try:
        crypter()
    except ConfigurationError as error:
        return [Error(str(error), id="django_quota.E003")]
    return []


def check_installation(**kwargs: Any) -> list[CheckMessage]:
    """The rest of the project's settings, as far as a sign-in needs them."""
    messages: list[CheckMessage] = []
    if not any(_is_ours(path, QuotaBackend) for path in settings.AUTHENTICATION_BACKENDS):
        messages.append(
            Error(
                "No QuotaBackend in AUTHENTICATION_BACKENDS: nobody can sign in with Quota.",
                hint=f"Add {BACKEND!r} to AUTHENTICATION_BACKENDS.",
                id="django_quota.E004",
            )
        )
    try:
        url_with(conf.get_settings().error_url)
    except NoReverseMatch:
        messages.append(
            Error(
                f"QUOTA_ERROR_URL is {conf.get_settings().error_url!r}, neither a path nor the "
                "name of a URL of this project.",
                hint='Is path("auth/quota/", include("django_quota.urls")) in your URLs? Else set '
                'it to a path such as "/".',
                id="django_quota.E005",
            )
        )
    except ConfigurationError:
        pass  # check_settings has said so
    if str(settings.SESSION_COOKIE_SAMESITE).lower() == "strict":
        messages.append(
            Warning(
                "SESSION_COOKIE_SAMESITE is 'Strict': the browser does not send that cookie when "
                "it comes back from Quota, so every sign-in ends in state_mismatch.",
                hint="Set SESSION_COOKIE_SAMESITE = 'Lax', Django's default.",
                id="django_quota.W002",
            )
        )
    if not any(_is_ours(path, QuotaMiddleware) for path in settings.MIDDLEWARE):
        messages.append(
            Warning(
                "No QuotaMiddleware in MIDDLEWARE: there is no request.quota, no view may "
                "be marked by @quota_required, and an empty wallet is an error of the site.",
                hint=f"Add {MIDDLEWARE!r} to MIDDLEWARE, after AuthenticationMiddleware.",
                id="django_quota.W003",
            )
        )
    in_transactions = any(alias.get("ATOMIC_REQUESTS") for alias in settings.DATABASES.values())
    if in_transactions and _is_ours(settings.CACHES["default"].get("BACKEND", ""), DatabaseCache):
        messages.append(
            Warning(
                "The cache is in the database, and ATOMIC_REQUESTS puts what is written to it into "
                "the transaction of a request: pages that show a balance wait for each other.",
                hint="Use Redis or Memcached as the default of CACHES.",
                id="django_quota.W004",
            )
        )
    return messages


def _is_ours(path: str, kind: type) -> bool:
    try:
        found = import_string(path)
    except Exception:  # whatever a module of the project's raises, Django itself will report
        return False
    return isinstance(found, type) and issubclass(found, kind)
