"""Its settings: the tests', and what benchmarks.stops says in an environment variable."""

import json
import os

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS

STOPPED = json.loads(os.environ["DJANGO_QUOTA_STOPS"])

ALLOWED_HOSTS = ["*"]
DATABASES = {"default": STOPPED["database"]}
INSTALLED_APPS = [*INSTALLED_APPS, "benchmarks.stopped", *STOPPED["apps"]]
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
}
QUOTA_BASE_URL = STOPPED["quota"]
# Quota answers in time, however slow this machine is.
QUOTA_TIMEOUT, QUOTA_DEADLINE = (60, 60), 60
ROOT_URLCONF = "benchmarks.stopped.urls"

HUEY = {"name": STOPPED["queue"], "url": STOPPED["redis"], "immediate": False}
RQ = {"AUTOCLEAN": False}
RQ_QUEUES = {STOPPED["queue"]: {"URL": STOPPED["redis"]}}
TASKS = {"default": {"BACKEND": "django.tasks.backends.immediate.ImmediateBackend"}}
