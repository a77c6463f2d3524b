"""System checks: `manage.py check` reports each setting that is missing or wrong, with a remedy.

Errors:

* E001: a required setting is missing.
* E002: a setting is malformed.
* E003: FIELD_ENCRYPTION_KEY is missing or malformed.
* E004: AUTHENTICATION_BACKENDS has no QuotaBackend.
* E005: QUOTA_ERROR_URL is neither a path nor the name of a URL.
* E006: QUOTA_IMPERSONATION does not name a plain function.
* E007: another URL pattern matches one of this package's URLs first.
* E008: QUOTA_SPENDING_LIMITS does not name a plain function.

Warnings:

* W001: a QUOTA_* setting is unknown.
* W002: SESSION_COOKIE_SAMESITE is "Strict".
* W003: MIDDLEWARE has no QuotaMiddleware.
* W004: the cache takes part in the transactions of requests.
* W005: the cache's `add` is not atomic.
* W006: QUOTA_ERROR_URL is a page that requires a sign-in.
* W007: people who sign in on another host end on the callback's host.
* W010: ATOMIC_REQUESTS gets in the way of renewals or AI calls.
* W011: the user model's USERNAME_FIELD takes no text.
* W012: the user model has two e-mail addresses.
* W013: sign-up is closed, but a first sign-in creates users.
* W014: a request can choose the callback's host.
* W015: an OpenAI client may bill the developer's key by mistake.
* W016: a limit for a user's day is never reached.
"""

from .project import check_installation, check_surroundings
from .settings import (
    check_encryption_key,
    check_impersonation,
    check_settings,
    check_spending_limits,
)
from .urls import check_urls

__all__ = [
    "check_encryption_key",
    "check_impersonation",
    "check_installation",
    "check_settings",
    "check_spending_limits",
    "check_surroundings",
    "check_urls",
]
