"""The tests' project on a real PostgreSQL."""

from tests.postgres import server_settings
from tests.settings import *  # noqa: F403

DATABASES = {"default": server_settings()}
