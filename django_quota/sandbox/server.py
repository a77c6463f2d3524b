"""The HTTP server: Django's own development server classes, quiet and quick."""

from __future__ import annotations

import contextlib
from typing import Any

from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler

__all__ = ["SandboxServer", "bind"]


class QuietHandler(WSGIRequestHandler):
    """Keeps connections alive and writes nothing to the terminal."""

    # Headers and body are two writes; Nagle's algorithm would hold the second one back.
    disable_nagle_algorithm = True
    # Seconds an idle connection may hold its thread.
    timeout = 120

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing: GET /sandbox/requests has the log."""

    def handle(self) -> None:
        """Serve a connection until either side is done with it."""
        with contextlib.suppress(ConnectionError, TimeoutError):
            super().handle()


class SandboxServer(ThreadedWSGIServer):
    """One thread for each connection."""

    request_queue_size = 128


def bind(host: str, port: int) -> SandboxServer:
    """Listen on host and port (0: any free one). Raises OSError."""
    return SandboxServer((host, port), QuietHandler, ipv6=":" in host)
