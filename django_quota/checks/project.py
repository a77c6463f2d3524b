"""Checks of the project's other settings, as far as signing in and billing depend on them."""

import os
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.cache.backends.db import DatabaseCache
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.filebased import FileBasedCache
from django.core.checks import CheckMessage, Error, Warning
from django.db import connections, router

from django_quota.backends import QuotaBackend
from django_quota.conf import get_settings, problems
from django_quota.exceptions import ConfigurationError
from django_quota.middleware import QuotaMiddleware
from django_quota.models import QuotaToken

from .common import is_path_of_subclass
from .urls import check_error_page, check_error_url, check_next_hosts
from .users import check_sign_up, check_user_model

BACKEND = "django_quota.backends.QuotaBackend"
MIDDLEWARE = "django_quota.middleware.QuotaMiddleware"


def check_surroundings(**kwargs: Any) -> list[CheckMessage]:
    """Check that a stranger cannot choose the callback's host, and that users pay for their calls.

    Both are matters of security.
    """
    if problems():  # check_settings reports them
        return []
    return [*_check_callback_host(), *_check_developer_key()]


def check_installation(**kwargs: Any) -> list[CheckMessage]:
    """Check the project's settings that a sign-in depends on."""
    found = [
        *_check_backend(),
        *_check_session_cookie(),
        *_check_middleware(),
        *_check_cache_in_transaction(),
        *_check_transactions(),
        *_check_cache(),
    ]
    try:
        quota = get_settings()
    except ConfigurationError:  # check_settings reports it
        return found
    return [
        *found,
        *check_error_url(quota),
        *check_user_model(quota),
        *check_sign_up(quota),
        *check_error_page(quota),
        *check_next_hosts(quota),
    ]


def _check_callback_host() -> Iterator[CheckMessage]:
    if "*" in settings.ALLOWED_HOSTS and get_settings().redirect_uri is None:
        yield Warning(
            'ALLOWED_HOSTS contains "*", and QUOTA_REDIRECT_URI is not set: the callback is '
            "on any host that a request names.",
            hint="Name the site's own hosts in ALLOWED_HOSTS, or set QUOTA_REDIRECT_URI to the "
            "callback that is registered with Quota.",
            id="django_quota.W014",
        )


def _check_developer_key() -> Iterator[CheckMessage]:
    quota = get_settings()
    spends = "credits.spend" in quota.scopes + quota.connect_scopes
    if spends and os.environ.get("OPENAI_API_KEY"):
        yield Warning(
            "OPENAI_API_KEY is in the environment: an OpenAI client that is created without "
            "openai_client(user), by a framework for example, bills you and not the user.",
            hint="Remove it from the environment of this site. Where you mean to pay, pass a "
            "key explicitly: django_quota.ai.developer_client.",
            id="django_quota.W015",
        )


def _check_backend() -> Iterator[CheckMessage]:
    paths = settings.AUTHENTICATION_BACKENDS
    if not any(is_path_of_subclass(path, QuotaBackend) for path in paths):
        yield Error(
            "No QuotaBackend in AUTHENTICATION_BACKENDS: nobody can sign in with Quota.",
            hint=f"Add {BACKEND!r} to AUTHENTICATION_BACKENDS.",
            id="django_quota.E004",
        )


def _check_middleware() -> Iterator[CheckMessage]:
    if not any(is_path_of_subclass(path, QuotaMiddleware) for path in settings.MIDDLEWARE):
        yield Warning(
            "No QuotaMiddleware in MIDDLEWARE: request.quota is missing, @quota_required does not "
            "work, an empty wallet becomes a server error, and staff who act as a user can spend "
            "that user's credits.",
            hint=f"Add {MIDDLEWARE!r} to MIDDLEWARE, after AuthenticationMiddleware.",
            id="django_quota.W003",
        )


def _check_session_cookie() -> Iterator[CheckMessage]:
    if str(settings.SESSION_COOKIE_SAMESITE).lower() == "strict":
        yield Warning(
            "SESSION_COOKIE_SAMESITE is 'Strict': the browser does not send that cookie when "
            "it comes back from Quota, so every sign-in ends in state_mismatch.",
            hint="Set SESSION_COOKIE_SAMESITE = 'Lax', Django's default.",
            id="django_quota.W002",
        )


def _check_cache_in_transaction() -> Iterator[CheckMessage]:
    in_transactions = any(alias.get("ATOMIC_REQUESTS") for alias in settings.DATABASES.values())
    if in_transactions and is_path_of_subclass(_default_cache(), DatabaseCache):
        yield Warning(
            "The cache is in the database, and ATOMIC_REQUESTS makes cache writes part of a "
            "request's transaction: pages that show a balance wait for each other.",
            hint="Use Redis or Memcached as the default of CACHES.",
            id="django_quota.W004",
        )


def _check_cache() -> Iterator[CheckMessage]:
    # Their `add` is not atomic: the file cache looks before it writes, the dummy cache always
    # returns True.
    backend = _default_cache()
    if any(is_path_of_subclass(backend, kind) for kind in (FileBasedCache, DummyCache)):
        yield Warning(
            f"The `add` of the default cache, {backend}, is not atomic: after two simultaneous AI "
            "calls, pages may show the older balance.",
            hint="Use Redis or Memcached as the default of CACHES, at least in production.",
            id="django_quota.W005",
        )


def _default_cache() -> str:
    """The dotted path of the default cache's backend."""
    path: str = settings.CACHES["default"].get("BACKEND", "")
    return path


def _check_transactions() -> Iterator[CheckMessage]:
    """Check that a request's transaction does not get in the way of a renewal or an AI call."""
    connection = connections[router.db_for_write(QuotaToken)]
    if not connection.settings_dict["ATOMIC_REQUESTS"]:
        return
    if connection.vendor == "sqlite":
        problem = "a view on SQLite cannot renew an expired token"
    elif connection.settings_dict["OPTIONS"].get("pool"):
        problem = "a view keeps its place in the connection pool while it waits for an AI"
    else:
        return
    yield Warning(
        f"ATOMIC_REQUESTS runs each request in a transaction: {problem}.",
        hint="Mark such a view with @quota_required, which renews the token first, and with "
        "transaction.non_atomic_requests if it does not need the transaction. Silence this "
        "check when that is done.",
        id="django_quota.W010",
    )
