"""What the sandbox keeps in memory: its origin, the knobs and a log of requests.

This module imports no Django, because the settings module uses it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import replace
from typing import Any, TypeAlias

from .knobs import Failure, Knobs, read_knobs

__all__ = ["SandboxState", "state"]

MAX_LOGGED_REQUESTS = 2_000

RequestLog: TypeAlias = deque[dict[str, Any]]


class SandboxState:
    """The state that all threads of the sandbox share."""

    def __init__(self) -> None:
        self.origin = "http://127.0.0.1:5281"
        self.knobs = Knobs()
        self._lock = threading.Lock()
        self._knobs_changed = threading.Condition(self._lock)
        self.request_log: RequestLog = deque(maxlen=MAX_LOGGED_REQUESTS)

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
            self._knobs_changed.notify_all()

    def reset_knobs(self) -> None:
        """Set every knob to its default."""
        with self._lock:
            self.knobs = Knobs()
            self._knobs_changed.notify_all()

    def wait_out_latency(self, path: str) -> None:
        """Wait for the latency of ``path``. A change of the knob takes effect at once."""
        begun = time.monotonic()
        with self._lock:
            while (left := begun + self.knobs.latency.get(path, 0) - time.monotonic()) > 0:
                self._knobs_changed.wait(left)

    def take_failure(self, path: str) -> Failure | None:
        """Return the failure to simulate for a request to ``path``, and count the request."""
        with self._lock:
            failure = self.knobs.fail
            if failure is None or failure.path != path:
                return None
            left = failure.times - 1
            self.knobs.fail = replace(failure, times=left) if left else None
            return failure

    def log_request(self, log: RequestLog, method: str, path: str, status: int) -> None:
        """Add a request that was answered to ``log``, without its query string and body.

        ``log`` is the ``request_log`` from when the request arrived. If the log was cleared since
        then, the request is not in the new log.
        """
        with self._lock:
            log.append({"method": method, "path": path, "status": status})

    def requests(self) -> list[dict[str, Any]]:
        """Return the logged requests, oldest first."""
        with self._lock:
            return list(self.request_log)

    def clear_requests(self) -> None:
        """Start a new log. Requests that are still being answered are not logged in it."""
        self.request_log = deque(maxlen=MAX_LOGGED_REQUESTS)


state = SandboxState()
