"""Django settings of the sandbox process; never mixed with the settings of a project."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

from .state import state

BASE_DIR = Path(__file__).resolve().parent

# Sessions do not outlive the process, which is fine for a sandbox and leaves no key to guard.
SECRET_KEY = secrets.token_urlsafe(50)
DEBUG = False
ALLOWED_HOSTS = os.environ.get("QUOTA_SANDBOX_HOSTS", "127.0.0.1,localhost,[::1]").split(",")
ROOT_URLCONF = "django_quota.sandbox.urls"
APPEND_SLASH = False
USE_TZ = True
LANGUAGE_CODE = "en"
USE_I18N = False

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "oauth2_provider",
    "django_quota.sandbox.apps.SandboxConfig",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    # Gives each reply its Content-Length, without which a connection cannot be kept alive.
    "django.middleware.common.CommonMiddleware",
    "django_quota.sandbox.middleware.PageSecurityMiddleware",
    "django_quota.sandbox.middleware.KnobMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
            ]
        },
    },
]
STATIC_URL = "/static/"

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("QUOTA_SANDBOX_DATA", "quota-sandbox.sqlite3"),
        # A connection belongs to a thread, and a thread to one client connection.
        "CONN_MAX_AGE": None,
        "OPTIONS": {
            "timeout": 20,
            # Writers queue at BEGIN: a transaction that has read can then always write.
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
    },
}

AUTH_USER_MODEL = "quota_sandbox.User"
PASSWORD_HASHERS = ["django_quota.sandbox.hashers.QuickPasswordHasher"]
LOGIN_URL = "/login"
LOGIN_REDIRECT_URL = "/"

# Cookies ignore the port: other names than a Django project on the same host would use.
SESSION_COOKIE_NAME = "quota_session"
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_NAME = "quota_csrftoken"
CSRF_COOKIE_HTTPONLY = True
CSRF_FAILURE_VIEW = "django_quota.sandbox.pages.csrf_failure"

OAUTH2_PROVIDER_APPLICATION_MODEL = "quota_sandbox.Application"
OAUTH2_PROVIDER: dict[str, Any] = {
    "SCOPES_BACKEND_CLASS": "django_quota.sandbox.scopes.ApplicationScopes",
    "OAUTH2_VALIDATOR_CLASS": "django_quota.sandbox.validators.QuotaValidator",
    "OAUTH2_BACKEND_CLASS": "django_quota.sandbox.validators.QuotaOAuthLibCore",
    "ACCESS_TOKEN_GENERATOR": "django_quota.sandbox.tokens.new_access_token",
    "REFRESH_TOKEN_GENERATOR": "django_quota.sandbox.tokens.new_refresh_token",
    "ACCESS_TOKEN_EXPIRE_SECONDS": lambda request: state.knobs.access_token_lifetime,
    "OIDC_ENABLED": True,
    "OIDC_RP_INITIATED_LOGOUT_ENABLED": True,
    "OIDC_RP_INITIATED_LOGOUT_ALWAYS_PROMPT": False,
    "OIDC_RP_INITIATED_LOGOUT_STRICT_REDIRECT_URIS": True,
    # Signing out of Quota keeps the wallet connection that background jobs use.
    "OIDC_RP_INITIATED_LOGOUT_DELETE_TOKENS": False,
    "COMPLIANT_BCP_RFC9700_IMPLICIT_GRANT": True,
    "COMPLIANT_BCP_RFC9700_PASSWORD_GRANT": True,
    "COMPLIANT_BCP_RFC9700_ACCESS_TOKEN_TRANSPORT": True,
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    # An outage that a knob plays is a 5xx without an exception, and no news.
    "filters": {
        "exceptions_only": {
            "()": "django.utils.log.CallbackFilter",
            "callback": lambda record: record.exc_info is not None,
        }
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {
        # A client's mistakes are answered to the client; only ours belong on the terminal.
        "django": {"level": "ERROR"},
        "django.request": {"level": "ERROR", "filters": ["exceptions_only"]},
        "django.security": {"level": "CRITICAL"},
        "oauth2_provider": {"level": "ERROR"},
        # oauthlib writes whole requests, secrets included, at its debug level.
        "oauthlib": {"level": "ERROR"},
    },
}
