"""Settings of the example project, from the environment and a `.env` file beside manage.py.

What django_quota needs is marked with "Quota"; the rest is an ordinary Django project. Every
variable is described in `.env.example`. The environment wins over the file.
"""

import os
from pathlib import Path
from urllib.parse import urlsplit

from dotenv import load_dotenv

BASE_DIR = Path(__file__).resolve().parent.parent

load_dotenv(os.environ.get("EXAMPLE_ENV_FILE", BASE_DIR / ".env"))

PRODUCTION = os.environ.get("EXAMPLE_PRODUCTION") == "1"
DEBUG = not PRODUCTION
SECRET_KEY = os.environ.get("SESSION_SECRET", "")
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
if PRODUCTION:
    ALLOWED_HOSTS = os.environ.get("EXAMPLE_ALLOWED_HOSTS", "").split()

# Quota: the app, its backend, its credentials and the key that encrypts the tokens.
INSTALLED_APPS = [
    "chat",  # before django_quota: its templates/django_quota/base.html replaces the package's
    "django_quota",
    "csp",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "django_quota.backends.QuotaBackend",
]
LOGIN_URL = "django_quota:start"
LOGIN_REDIRECT_URL = "chat:home"
QUOTA_CLIENT_ID = os.environ.get("QUOTA_CLIENT_ID", "")
QUOTA_CLIENT_SECRET = os.environ.get("QUOTA_CLIENT_SECRET", "")
QUOTA_BASE_URL = os.environ.get("QUOTA_BASE_URL", "https://api.usequota.ai")
QUOTA_TOPUP_URL = os.environ.get("QUOTA_TOPUP_URL", "https://usequota.ai")
QUOTA_WEBHOOK_SECRET = os.environ.get("QUOTA_WEBHOOK_SECRET") or None
FIELD_ENCRYPTION_KEY = os.environ.get("FIELD_ENCRYPTION_KEY", "")

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_quota.middleware.QuotaMiddleware",
]

# Nothing inline, nothing from elsewhere, except what signing in with Quota needs.
quota_origin = "{0.scheme}://{0.netloc}".format(urlsplit(QUOTA_BASE_URL))
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "connect-src": ["'self'"],
        # Users' pictures: the sandbox serves its own, Quota's may be on any host.
        "img-src": ["'self'", quota_origin, "https:"],
        # Browsers apply this to the redirects that follow a form too: signing out goes on to
        # Quota, and buying credits to its checkout.
        "form-action": ["'self'", quota_origin, "https://checkout.stripe.com"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
    }
}

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("EXAMPLE_DATABASE", BASE_DIR / "db.sqlite3"),
    }
}

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"

# Cookies do not know ports: names of our own, so that no other project on localhost shares them.
# SameSite=Lax, not Strict: the way back from Quota comes from another site.
SESSION_COOKIE_NAME = "example_session"
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_NAME = "example_csrftoken"
CSRF_COOKIE_HTTPONLY = True

if PRODUCTION:
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
    SECURE_SSL_REDIRECT = True
    SECURE_HSTS_SECONDS = 365 * 24 * 60 * 60
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    # Preloading cannot be taken back for months, so it is not for an example to copy.
    SILENCED_SYSTEM_CHECKS = ["security.W021"]
    # All processes share the balances that are shown.
    if redis_url := os.environ.get("EXAMPLE_REDIS_URL"):
        CACHES = {
            "default": {
                "BACKEND": "django.core.cache.backends.redis.RedisCache",
                "LOCATION": redis_url,
            }
        }
    if os.environ.get("EXAMPLE_BEHIND_PROXY") == "1":
        # Only for a proxy that sets or strips this header itself: else anybody can claim https.
        SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    MIDDLEWARE.insert(1, "whitenoise.middleware.WhiteNoiseMiddleware")
    STORAGES = {
        "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
        "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
    }
