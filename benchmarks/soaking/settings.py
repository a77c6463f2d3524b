"""The project of the soak, as its servers and commands have it: each process reads it anew."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.settings import *  # noqa: F403

_SOAK = json.loads(os.environ["QUOTA_SOAK"])

SECRET_KEY = _SOAK["secret_key"]
TIME_ZONE = "UTC"
ROOT_URLCONF = "benchmarks.soaking.urls"
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django_quota.middleware.QuotaMiddleware",
]
DATABASES = {"default": _SOAK["database"]}

QUOTA_BASE_URL = _SOAK["base_url"]
# A secret of each process's own: the provider then knows who got an answer, and a kill excuses it.
QUOTA_CLIENT_SECRET = f"quota_secret_{os.getpid()}"
QUOTA_WEBHOOK_SECRET = "whsec_soak"
QUOTA_REFRESH_LEEWAY = 5
FIELD_ENCRYPTION_KEY = Path(_SOAK["keys"]).read_text().split()  # type: ignore[assignment]


LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "%(asctime)s [%(process)d] %(levelname)s %(name)s: %(message)s"}
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {"django": {"handlers": [], "level": "WARNING", "propagate": True}},
}
