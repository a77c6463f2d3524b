"""A project that has the package from a wheel: `-P` keeps the checkout off the path."""

import sys
import types

import django
from django.conf import settings
from django.contrib.staticfiles import finders
from django.core.management import call_command
from django.template.loader import get_template
from django.urls import include, path

import django_quota

urls = sys.modules["project_urls"] = types.ModuleType("project_urls")
settings.configure(
    MIDDLEWARE=["django_quota.middleware.QuotaMiddleware"],
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.staticfiles",
        "django_quota",
    ],
    AUTHENTICATION_BACKENDS=["django_quota.backends.QuotaBackend"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
    ROOT_URLCONF="project_urls",
    STATIC_URL="/static/",
    SECRET_KEY="x" * 60,
    QUOTA_CLIENT_ID="quota_client_x",
    QUOTA_CLIENT_SECRET="quota_secret_x",
    FIELD_ENCRYPTION_KEY="vX3nCwr9nK8x0NQ2Pq7m3dZ1l5yTtG6hR4bJ8sKfE0U=",
)
django.setup()
urls.urlpatterns = [path("auth/quota/", include("django_quota.urls"))]
call_command("check", fail_level="WARNING", verbosity=0)
call_command("migrate", verbosity=0)
call_command("makemigrations", check=True, dry_run=True, verbosity=0)
for name in ("error", "packages", "connect_confirm", "base", "tags/sign_in", "tags/balance"):
    get_template(f"django_quota/{name}.html")
assert finders.find("django_quota/quota.css"), "quota.css"
print("used from", django_quota.__file__)
