"""What the sandbox keeps in memory: its origin, the knobs and a log of requests.

This module imports no Django, because the settings module uses it.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import replace
from typing import Any

from .knobs import Failure, Knobs, read_knobs

__all__ = ["SandboxState", "state"]

MAX_LOGGED_REQUESTS = 2_000


class SandboxState:
    """The state that all threads of the sandbox share."""

    def __init__(self) -> None:
        self.origin = "http://127.0.0.1:5281"
        self.knobs = Knobs()
        self._lock = threading.Lock()
        self._requests: deque[dict[str, Any]] = deque(maxlen=MAX_LOGGED_REQUESTS)

    @property
    def issuer(self) -> str:
        """The issuer in discovery and id_tokens."""
        return self.knobs.issuer or self.origin

    def update_knobs(self, values: dict[str, Any]) -> None:
        """Change the named knobs, or none of them if a value is invalid.

        Raises ValueError, with a message for the client.
        """
        checked = read_knobs(values)
        with self._lock:
            for name, value in checked.items():
                setattr(self.knobs, name, value)

    def reset_knobs(self) -> None:
        """Set every knob to its default."""
        with self._lock:
            self.knobs = Knobs()

    def take_failure(self, path: str) -> Failure | None:
        """Return the failure to simulate for a request to ``path``, and count the request."""
        with self._lock:
            failure = self.knobs.fail
            if failure is None or failure.path != path:
                return None
            left = failure.times - 1
            self.knobs.fail = replace(failure, times=left) if left else None
            return failure

    def log_request(self, method: str, path: str, status: int) -> None:
        """Log a request that was answered, without its query string and body."""
        with self._lock:
            self._requests.append({"method": method, "path": path, "status": status})

    def requests(self) -> list[dict[str, Any]]:
        """Return the logged requests, oldest first."""
        with self._lock:
            return list(self._requests)

    def clear_requests(self) -> None:
        """Delete the logged requests."""
        with self._lock:
            self._requests.clear()


state = SandboxState()
