"""The project that a program of `tests.neighbours` runs in: the tests' own, and its neighbour."""

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core.management import call_command

from tests import settings as tests_settings
from tests.sandbox_client import Person, Sandbox


def configure(*, apps: Sequence[str] = (), middleware: Sequence[str] = (), **changes: Any) -> None:
    """Set Django up with the tests' settings, these apps and middleware after ours, and `changes`;
    then make the tables. The database is a new SQLite file unless `changes` has DATABASES."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    options = {
        name: getattr(tests_settings, name) for name in dir(tests_settings) if name.isupper()
    }
    options["DATABASES"] = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": folder / "project.sqlite3",
            "OPTIONS": {"timeout": 20},
        }
    }
    options["INSTALLED_APPS"] = [*options["INSTALLED_APPS"], *apps]
    options["MIDDLEWARE"] = [*options["MIDDLEWARE"], *middleware]
    if "QUOTA_BASE_URL" in os.environ:
        app = json.loads(os.environ["QUOTA_APP"])
        options["QUOTA_BASE_URL"] = os.environ["QUOTA_BASE_URL"]
        options["QUOTA_CLIENT_ID"] = app["client_id"]
        options["QUOTA_CLIENT_SECRET"] = app["client_secret"]
    settings.configure(**(options | changes))
    django.setup()
    call_command("migrate", run_syncdb=True, verbosity=0)


def sandbox() -> Sandbox:
    """The local Quota that the test runs."""
    return Sandbox(os.environ["QUOTA_BASE_URL"], json.loads(os.environ["QUOTA_APP"]))


def person(**options: Any) -> Person:
    """Somebody at a browser that knows this project and that Quota."""
    return sandbox().person(**options)
