"""The tests' project on the MariaDB server that TEST_MARIADB_HOST names."""

import os

from tests.settings import *  # noqa: F403

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.mysql",
        "NAME": "django_quota",
        "HOST": os.environ["TEST_MARIADB_HOST"],
        "USER": os.environ.get("TEST_MARIADB_USER", "root"),
        "PASSWORD": os.environ.get("TEST_MARIADB_PASSWORD", ""),
        "OPTIONS": {"charset": "utf8mb4"},
    }
}
