"""Django settings of the sandbox, which runs separately from the project that is tested."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

from .state import state

BASE_DIR = Path(__file__).resolve().parent

# A new key for each run ends the sessions of the previous one, and no key has to be stored.
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
    # Sets Content-Length, which a connection needs to be kept alive.
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
        # Each client connection has its own thread, which keeps one database connection.
        "CONN_MAX_AGE": None,
        "OPTIONS": {
            "timeout": 20,
            # BEGIN waits for other writers, so a transaction that has started can always write.
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
    },
}

AUTH_USER_MODEL = "quota_sandbox.User"
PASSWORD_HASHERS = ["django_quota.sandbox.hashers.QuickPasswordHasher"]
LOGIN_URL = "/login"
LOGIN_REDIRECT_URL = "/"

# Ports of one host share their cookies, so the names differ from those of the tested project.
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
    "ACCESS_TOKEN_GENERATOR": "django_quota.sandbox.tokens.generate_access_token",
    "REFRESH_TOKEN_GENERATOR": "django_quota.sandbox.tokens.generate_refresh_token",
    "ACCESS_TOKEN_EXPIRE_SECONDS": lambda request: state.knobs.access_token_lifetime,
    "OIDC_ENABLED": True,
    "OIDC_RP_INITIATED_LOGOUT_ENABLED": True,
    "OIDC_RP_INITIATED_LOGOUT_ALWAYS_PROMPT": False,
    "OIDC_RP_INITIATED_LOGOUT_STRICT_REDIRECT_URIS": True,
    # Signing out of Quota does not revoke tokens, because background jobs use them.
    "OIDC_RP_INITIATED_LOGOUT_DELETE_TOKENS": False,
    "COMPLIANT_BCP_RFC9700_IMPLICIT_GRANT": True,
    "COMPLIANT_BCP_RFC9700_PASSWORD_GRANT": True,
    "COMPLIANT_BCP_RFC9700_ACCESS_TOKEN_TRANSPORT": True,
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    # A simulated failure is a 5xx without an exception, and is not worth a log message.
    "filters": {
        "exceptions_only": {
            "()": "django.utils.log.CallbackFilter",
            "callback": lambda record: record.exc_info is not None,
        }
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {
        # Errors of clients are only reported to them; the terminal shows errors of the sandbox.
        "django": {"level": "ERROR"},
        "django.request": {"level": "ERROR", "filters": ["exceptions_only"]},
        "django.security": {"level": "CRITICAL"},
        "oauth2_provider": {"level": "ERROR"},
        # At debug level, oauthlib logs whole requests including their secrets.
        "oauthlib": {"level": "ERROR"},
    },
}
