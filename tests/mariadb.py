"""The MariaDB server that the environment names, and its client, which has to be compiled.

`python tests/mariadb.py` installs the client.
"""

import os
import subprocess
import sys
from typing import Any

CLIENT = "mysqlclient>=2.2"


def server_settings() -> dict[str, Any]:
    """Django's settings for the server; the run ends here where there is none."""
    import MySQLdb

    host = os.environ.get("TEST_MARIADB_HOST")
    if not host:
        raise SystemExit(
            "Set TEST_MARIADB_HOST to the host of a MariaDB server, such as 127.0.0.1."
        )
    user = os.environ.get("TEST_MARIADB_USER", "root")
    password = os.environ.get("TEST_MARIADB_PASSWORD", "")
    try:
        MySQLdb.connect(host=host, user=user, password=password, connect_timeout=5).close()
    except MySQLdb.Error as error:
        raise SystemExit(
            f"No MariaDB server at {host} accepts the user {user}: {error.args[-1]}. Start one, "
            "or set TEST_MARIADB_HOST, TEST_MARIADB_USER and TEST_MARIADB_PASSWORD."
        ) from None
    return {
        "ENGINE": "django.db.backends.mysql",
        # Runs beside each other have a database each, as Django deletes one that is there. The
        # workers of a run find its name in the environment.
        "NAME": os.environ.setdefault("TEST_MARIADB_NAME", f"django_quota_{os.getpid()}"),
        "HOST": host,
        "USER": user,
        "PASSWORD": password,
        "OPTIONS": {"charset": "utf8mb4"},
    }


def install_client() -> None:
    """Compile the client, if it is not installed yet; say what that needs where it fails."""
    command = [sys.executable, "-m", "pip", "install", "-q", CLIENT]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        raise SystemExit(
            "mysqlclient could not be installed. It has to be compiled: on Debian, first run "
            "`apt install gcc pkg-config libmariadb-dev python3-dev`. "
            f"`{sys.executable} -m pip install mysqlclient` shows the reason."
        )


if __name__ == "__main__":
    install_client()
