"""The tests' project with another user model, that the environment names."""

import os

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.hostile.custom_users"]
AUTH_USER_MODEL = f"custom_users.{os.environ['CUSTOM_USER']}"
