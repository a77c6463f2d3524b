"""The knobs: settings of the sandbox that can be changed while it runs.

This module imports no Django, because the settings module uses it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

__all__ = ["Failure", "Knobs", "read_knobs"]

MAX_SECONDS = 10 * 365 * 24 * 3600
MAX_PAUSE_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A simulated failure: the next ``times`` requests to ``path`` are answered with ``status``."""

    path: str
    status: int
    times: int = 1
    #: Seconds for a ``Retry-After`` header.
    retry_after: int | None = None
    #: The body of the answer, instead of a JSON error.
    body: str | None = None
    #: If True, the request is carried out first, and only its answer is lost.
    after: bool = False


@dataclass(kw_only=True)
class Knobs:
    """How the sandbox behaves where Quota's documents leave it open, and what it simulates.

    The defaults are the strictest reading of the protocol: a refresh token is valid once, without
    a grace period, and using it again revokes all tokens that descend from it.
    """

    #: Seconds for which an access token is valid.
    access_token_lifetime: int = 3600
    #: Seconds between ``iat`` and ``exp`` of an id_token.
    id_token_lifetime: int = 3600
    #: Seconds for which a used refresh token still returns the tokens it was exchanged for.
    refresh_grace_seconds: int = 0
    #: If False, a refresh returns no new refresh token, and the old one stays valid.
    rotate_refresh_tokens: bool = True
    #: If True, using a refresh token again revokes every token that descends from it.
    reuse_detection: bool = True
    #: If True, a refresh does not revoke the previous access token.
    access_token_survives_refresh: bool = False
    #: The body of token errors: ``"rfc6749"``, or ``"quota"`` for Quota's own error object.
    token_error_shape: str = "rfc6749"  # noqa: S105
    #: Claims to replace in new id_tokens. None removes a claim.
    id_token_overrides: dict[str, Any] = field(default_factory=dict)
    #: If True, the token endpoint returns no id_token.
    omit_id_token: bool = False
    #: The issuer in discovery and id_tokens. None means the sandbox's own origin.
    issuer: str | None = None
    #: The failure to simulate.
    fail: Failure | None = None
    #: Seconds to wait before a request is answered, by path.
    latency: dict[str, float] = field(default_factory=dict)
    #: Seconds between two tokens of a streamed answer.
    stream_delay: float = 0.02
    #: The number of tokens after which a streamed answer ends with an error. None means never.
    stream_breaks_after: int | None = None
    #: How many times each webhook event is delivered.
    webhook_copies: int = 1
    #: If True, a refusal to fund a user is repeated for the same ``Idempotency-Key``.
    keep_funding_refusals: bool = True

    def as_dict(self) -> dict[str, Any]:
        """Return the knobs by name, as values that JSON can represent."""
        return asdict(self)


def _is_seconds(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_SECONDS


def _is_pause(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= MAX_PAUSE_SECONDS


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_latency(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_pause(seconds) for seconds in value.values())


#: A function that returns True for a valid value, and a description of valid values, by knob.
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
    "latency": (_is_latency, "an object of paths and seconds, each from 0 to 60"),
    "stream_delay": (_is_pause, "a number of seconds from 0 to 60"),
    "stream_breaks_after": (
        lambda n: n is None or (type(n) is int and n >= 0),
        "a number of tokens, or null",
    ),
    "keep_funding_refusals": (_is_bool, "true or false"),
    "webhook_copies": (lambda n: type(n) is int and 1 <= n <= 9, "an integer from 1 to 9"),
}


def read_knobs(values: dict[str, Any]) -> dict[str, Any]:
    """Validate new values of knobs, and return them with ``fail`` as a Failure.

    Raises ValueError, with a message for the client, for an unknown name or an invalid value.
    """
    checked: dict[str, Any] = {}
    for name, value in values.items():
        if name == "fail":
            checked[name] = _read_failure(value)
            continue
        if name not in _CHECKS:
            raise ValueError(f"There is no setting named {name!r}.")
        is_valid, expected = _CHECKS[name]
        if not is_valid(value):
            raise ValueError(f"{name} must be {expected}.")
        checked[name] = value
    return checked


def _read_failure(value: Any) -> Failure | None:
    if value is None:
        return None
    error = ValueError(
        "fail must be null or an object with path, status (400 to 599) and times (1 or more)."
    )
    if not isinstance(value, dict) or value.keys() - {item.name for item in fields(Failure)}:
        raise error
    path, status, times = value.get("path"), value.get("status"), value.get("times", 1)
    retry_after, body = value.get("retry_after"), value.get("body")
    after = value.get("after", False)
    if not (
        isinstance(path, str)
        and type(status) is int
        and 400 <= status <= 599
        and type(times) is int
        and times >= 1
        and (retry_after is None or _is_seconds(retry_after))
        and (body is None or isinstance(body, str))
        and isinstance(after, bool)
    ):
        raise error
    return Failure(
        path=path, status=status, times=times, retry_after=retry_after, body=body, after=after
    )
