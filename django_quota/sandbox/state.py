"""What the sandbox keeps in memory only: its origin, the knobs, the log of requests.

No Django in here, so that the settings module can import it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

__all__ = ["Failure", "Knobs", "SandboxState", "state"]

MAX_SECONDS = 10 * 365 * 24 * 3600
MAX_LOGGED_REQUESTS = 2_000


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An outage to play: the next ``times`` requests to ``path`` get ``status``.

    ``retry_after`` (seconds) becomes a ``Retry-After`` header; ``body`` replaces the JSON error.
    """

    path: str
    status: int
    times: int = 1
    retry_after: int | None = None
    body: str | None = None


@dataclass(kw_only=True)
class Knobs:
    """How the sandbox behaves, where Quota's own documents leave room or tests need a say.

    The defaults are the strict reading of the protocol: single-use refresh tokens, no grace,
    reuse revokes the family.
    """

    access_token_lifetime: int = 3600
    """Seconds an access token lives."""
    id_token_lifetime: int = 3600
    """Seconds from an id_token's ``iat`` to its ``exp``."""
    refresh_grace_seconds: int = 0
    """For how long a spent refresh token still returns the pair it was spent on."""
    rotate_refresh_tokens: bool = True
    """False: a refresh replies without a ``refresh_token``, and the old one stays good."""
    reuse_detection: bool = True
    """True: a spent refresh token seen again revokes every token that descends from it."""
    access_token_survives_refresh: bool = False
    """True: an access token lives on to its expiry after it was renewed."""
    token_error_shape: str = "rfc6749"  # noqa: S105
    """Body of a failed token call: ``"rfc6749"``, or ``"quota"`` for Quota's error object."""
    id_token_overrides: dict[str, Any] = field(default_factory=dict)
    """Claims to replace in id_tokens issued from now on; None removes the claim."""
    omit_id_token: bool = False
    """True: token replies carry no id_token."""
    issuer: str | None = None
    """Issuer to advertise and to write into id_tokens; None is the origin that serves."""
    fail: Failure | None = None
    """An outage to play."""
    latency: dict[str, float] = field(default_factory=dict)
    """Path to seconds of waiting before that path is answered."""
    stream_delay: float = 0.02
    """Seconds between two pieces of a streamed answer."""
    stream_breaks_after: int | None = None
    """After so many pieces a streamed answer ends in an error; None lets it come to its end."""
    webhook_copies: int = 1
    """How often each event is delivered."""

    def as_dict(self) -> dict[str, Any]:
        """Return the knobs as JSON-ready values, by name."""
        return asdict(self)


def _is_seconds(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_SECONDS


def _is_pause(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 60


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_latency(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_pause(seconds) for seconds in value.values())


_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "access_token_lifetime": (_is_seconds, "a whole number of seconds, 0 or more"),
    "id_token_lifetime": (_is_seconds, "a whole number of seconds, 0 or more"),
    "refresh_grace_seconds": (_is_seconds, "a whole number of seconds, 0 or more"),
    "rotate_refresh_tokens": (_is_bool, "true or false"),
    "reuse_detection": (_is_bool, "true or false"),
    "access_token_survives_refresh": (_is_bool, "true or false"),
    "token_error_shape": (lambda value: value in ("rfc6749", "quota"), '"rfc6749" or "quota"'),
    "id_token_overrides": (lambda value: isinstance(value, dict), "an object of claims"),
    "omit_id_token": (_is_bool, "true or false"),
    "issuer": (lambda value: value is None or isinstance(value, str), "a string or null"),
    "latency": (_is_latency, "an object of path to seconds, each from 0 to 60"),
    "stream_delay": (_is_pause, "seconds, from 0 to 60"),
    "stream_breaks_after": (
        lambda n: n is None or (type(n) is int and n >= 0),
        "a number of pieces, or null",
    ),
    "webhook_copies": (lambda n: type(n) is int and 1 <= n <= 9, "an integer from 1 to 9"),
}


def _parse_failure(value: Any) -> Failure | None:
    if value is None:
        return None
    expected = "null or an object with path, status (400 to 599) and times (1 or more)"
    if not isinstance(value, dict) or value.keys() - {item.name for item in fields(Failure)}:
        raise ValueError(f"fail must be {expected}.")
    path, status, times = value.get("path"), value.get("status"), value.get("times", 1)
    retry_after, body = value.get("retry_after"), value.get("body")
    if not (
        isinstance(path, str)
        and type(status) is int
        and 400 <= status <= 599
        and type(times) is int
        and times >= 1
        and (retry_after is None or _is_seconds(retry_after))
        and (body is None or isinstance(body, str))
    ):
        raise ValueError(f"fail must be {expected}.")
    return Failure(path=path, status=status, times=times, retry_after=retry_after, body=body)


class SandboxState:
    """The one mutable thing that all request threads share."""

    def __init__(self) -> None:
        self.origin = "http://127.0.0.1:5281"
        self.knobs = Knobs()
        self._lock = threading.Lock()
        self._requests: deque[dict[str, Any]] = deque(maxlen=MAX_LOGGED_REQUESTS)

    @property
    def issuer(self) -> str:
        """The issuer to advertise: the knob's, or the origin that serves."""
        return self.knobs.issuer or self.origin

    def update_knobs(self, values: dict[str, Any]) -> None:
        """Change the named knobs, all of them or none.

        Raises ValueError, with a sentence for the caller, for an unknown name or a bad value.
        """
        changes: dict[str, Any] = {}
        for name, value in values.items():
            if name == "fail":
                changes[name] = _parse_failure(value)
                continue
            if name not in _CHECKS:
                raise ValueError(f"There is no knob named {name!r}.")
            is_valid, expected = _CHECKS[name]
            if not is_valid(value):
                raise ValueError(f"{name} must be {expected}.")
            changes[name] = value
        with self._lock:
            for name, value in changes.items():
                setattr(self.knobs, name, value)

    def reset_knobs(self) -> None:
        """Put every knob back to its default."""
        with self._lock:
            self.knobs = Knobs()

    def take_failure(self, path: str) -> Failure | None:
        """Return the outage to play for this request, and count it, or None."""
        with self._lock:
            failure = self.knobs.fail
            if failure is None or failure.path != path:
                return None
            left = failure.times - 1
            self.knobs.fail = (
                Failure(
                    path=failure.path,
                    status=failure.status,
                    times=left,
                    retry_after=failure.retry_after,
                    body=failure.body,
                )
                if left
                else None
            )
            return failure

    def log_request(self, method: str, path: str, status: int) -> None:
        """Remember one answered request; the query and the body are never kept."""
        with self._lock:
            self._requests.append({"method": method, "path": path, "status": status})

    def requests(self) -> list[dict[str, Any]]:
        """Return the remembered requests, oldest first."""
        with self._lock:
            return list(self._requests)

    def clear_requests(self) -> None:
        """Forget the remembered requests."""
        with self._lock:
            self._requests.clear()


state = SandboxState()
"""The state of this process."""
