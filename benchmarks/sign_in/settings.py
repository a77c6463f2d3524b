"""The settings of a contestant: what `startproject` writes, a database that production would have,
and what the contestant's package asks for."""

import json
import os

from benchmarks.sign_in.contestants import PROJECTS

#: name, database, origin: from `crew`.
CONTESTANT = json.loads(os.environ["BENCHMARK_CONTESTANT"])
PROJECT = PROJECTS[CONTESTANT["name"]]

SECRET_KEY = "benchmark-" + "x" * 50
DEBUG = False
ALLOWED_HOSTS = ["localhost"]
ROOT_URLCONF = "benchmarks.sign_in.urls"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.sites",
    *PROJECT.apps,
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    *PROJECT.middleware,
]
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
AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend", *PROJECT.backends]
LOGIN_REDIRECT_URL = "/"
SITE_ID = 1
DATABASES = {"default": {**CONTESTANT["database"], "CONN_MAX_AGE": None}}
FIELD_ENCRYPTION_KEY = "vX3nCwr9nK8x0NQ2Pq7m3dZ1l5yTtG6hR4bJ8sKfE0U="

globals().update(PROJECT.settings(CONTESTANT["origin"]))
