"""django-pghistory copies each state of a row into a table of its own, by a trigger."""

import json
from typing import Any

import psycopg

from tests import settings_postgresql
from tests.neighbours import project

server: dict[str, Any] = dict(settings_postgresql.DATABASES["default"])
NAME = "quota_history"
APPS = ("admin", "auth", "contenttypes", "sessions", "django_quota", "database_history")
with psycopg.connect(
    host=server["HOST"], user=server["USER"], dbname=server["NAME"], autocommit=True
) as admin:
    admin.execute(f"DROP DATABASE IF EXISTS {NAME}")
    admin.execute(f"CREATE DATABASE {NAME}")
project.configure(
    apps=["pgtrigger", "pghistory", "tests.neighbours.database_history"],
    DATABASES={"default": server | {"NAME": NAME}},
    PGTRIGGER_MIGRATIONS=False,
    # A model that stands on another app's cannot be made without a migration, beside one with.
    MIGRATION_MODULES=dict.fromkeys(APPS),
)

from django.apps import apps
from django.core.management import call_command

from tests.neighbours import visit

call_command("pgtrigger", "install", verbosity=0)
visit.visit()
history = apps.get_app_config("database_history").get_model("TrackedTokenEvent")
print(
    json.dumps(
        {
            "entries": history.objects.count(),
            "clear": visit.clear_secrets(),
            "shown": str(list(history.objects.values())),
        }
    )
)
