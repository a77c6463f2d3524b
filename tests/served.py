"""The project of the tests under a real server, on the database of the test that starts it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Self

from tests.helpers.programs import free_port

#: The environment variable that tells the server's process what to serve.
CONFIG = "DJANGO_QUOTA_SERVED"

SERVERS = {
    "gunicorn": ["gunicorn", "tests.served:wsgi()", "--worker-class", "gthread", "--bind"],
    "uvicorn": ["uvicorn", "tests.served:asgi", "--factory", "--lifespan", "off", "--port"],
}


def wsgi() -> Any:
    """The WSGI application; called in the server's process."""
    from django.core.wsgi import get_wsgi_application

    return _set_up(get_wsgi_application)


def asgi() -> Any:
    """The ASGI application; called in the server's process."""
    from django.core.asgi import get_asgi_application

    return _set_up(get_asgi_application)


def _set_up(get_application: Callable[[], Any]) -> Any:
    from django.conf import settings

    config = json.loads(os.environ[CONFIG])
    settings.DATABASES["default"].update(config["database"])
    for name, value in config["settings"].items():
        setattr(settings, name, value)
    application = get_application()
    from django_quota.web import keepalive  # which needs the models, so the apps

    keepalive.SILENCE_SECONDS = config["silence"]
    return application


class Served:
    """A context manager: the project of the running test behind `server`, one of SERVERS.

    `silence` is `keepalive.SILENCE_SECONDS` there, in seconds.
    """

    def __init__(self, server: str, *, silence: float) -> None:
        from django.conf import settings
        from django.db import connection

        names = ("SECRET_KEY", "QUOTA_BASE_URL", "ROOT_URLCONF", "MIDDLEWARE")
        database = {name: connection.settings_dict[name] for name in ("NAME", "HOST", "PORT")}
        self._config = {
            "database": database,
            "settings": {name: getattr(settings, name) for name in names},
            "silence": silence,
        }
        self._server = server

    def __enter__(self) -> Self:
        self.port = free_port()
        address = str(self.port) if self._server == "uvicorn" else f"127.0.0.1:{self.port}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", *SERVERS[self._server], address],
            env=os.environ | {CONFIG: json.dumps(self._config, default=str)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return self
            time.sleep(0.05)
        raise AssertionError(f"{self._server} has ended with {self._process.returncode}")

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """As a deployment does: what it is doing is done when this returns."""
        self._process.terminate()
        self._process.wait(60)

    def ask(self, method: str, path: str, cookie: str) -> socket.socket:
        """The connection to a browser that has sent a request."""
        browser = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        browser.sendall(
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nCookie: sessionid={cookie}\r\n\r\n"
            "".encode()
        )
        return browser
