"""The tests' project on the MariaDB server that TEST_MARIADB_HOST names."""

from tests.mariadb import server_settings
from tests.settings import *  # noqa: F403

DATABASES = {"default": server_settings()}
