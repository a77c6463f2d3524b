"""The HTTP server, built from the classes of Django's development server."""

from __future__ import annotations

import contextlib
from typing import Any

from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler

__all__ = ["SandboxServer", "bind"]


class QuietHandler(WSGIRequestHandler):
    """Handles a connection without writing to the terminal."""

    # Headers and body are written separately, and Nagle's algorithm would delay the second write.
    disable_nagle_algorithm = True
    # Seconds until an idle connection is closed, which ends its thread.
    timeout = 120

    def log_message(self, format: str, *args: Any) -> None:
        """Do nothing: GET /sandbox/requests returns a log."""

    def handle(self) -> None:
        """Serve a connection until the client closes it or it has been idle too long."""
        with contextlib.suppress(ConnectionError, TimeoutError):
            super().handle()


class SandboxServer(ThreadedWSGIServer):
    """Serves each connection in its own thread."""

    request_queue_size = 128


def bind(host: str, port: int) -> SandboxServer:
    """Return a server that listens on host and port. Port 0 means any free one. Raises OSError."""
    return SandboxServer((host, port), QuietHandler, ipv6=":" in host)
