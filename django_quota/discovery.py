"""Where Quota's endpoints are, and with which keys it signs.

Both documents are kept in this process's memory, never in a shared cache: others could write to
that, and these two decide who signs in and where the client secret is sent.
"""

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, Generic, TypeVar

import jwt

from . import id_token
from .conf import get_settings, is_acceptable, origin
from .exceptions import ConfigurationError, IssuerMismatch, ProviderUnavailable
from .transport import Reply, exchange, within

__all__ = [
    "Metadata",
    "forget",
    "is_trusted",
    "metadata",
    "origin_of",
    "public",
    "published_keys",
    "signing_keys",
]

T = TypeVar("T")

#: Bounds, in seconds, on how long a Cache-Control header may make us keep a document.
MIN_AGE, DEFAULT_AGE, MAX_AGE = 300, 3600, 86_400
#: Seconds between two fetches of the keys for the sake of an unknown `kid`, and after a failure
#: of a document that we still have: an attacker must not be able to make us hammer Quota.
COOL_DOWN = 30
_URL = re.compile(r"[!-~]{1,2000}")
_SCOPE = re.compile(r"[\w.:/-]{1,100}", re.ASCII)
_PLAIN_URL = re.compile(r"https?://[A-Za-z0-9.:/_~%\[\]-]{1,200}")

#: Endpoints as the recipe has them, for what a discovery document leaves out.
_RECIPE_PATHS = {
    "authorization_endpoint": "/oauth/authorize",
    "token_endpoint": "/oauth/token",
    "userinfo_endpoint": "/oauth/userinfo",
    "jwks_uri": "/.well-known/jwks.json",
    "revocation_endpoint": "/oauth/revoke",
}


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What of the discovery document is used (OpenID Connect Discovery 1.0 section 3)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    userinfo_endpoint: str
    jwks_uri: str
    revocation_endpoint: str
    end_session_endpoint: str | None = None
    #: RFC 9207: does Quota name itself in the authorization response?
    sends_iss: bool = False
    #: What an app may ask for; () where Quota does not say.
    scopes_supported: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Document(Generic[T]):
    key: object
    value: T
    fresh_until: float


class _Kept(Generic[T]):
    """A document of Quota's in this process's memory, fetched by one thread at a time."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.clear()

    def clear(self) -> None:
        """Forget it, as a new process would start."""
        self._document: _Document[T] | None = None
        self._next_fetch = 0.0
        self._failed_at = 0.0

    def get(
        self,
        key: object,
        fetch: Callable[[], tuple[T, int | None]],
        *,
        good_enough: Callable[[T], bool] = lambda value: True,
    ) -> T:
        """The kept value if it is fresh and good enough, else the one that `fetch` brings.

        `fetch` gives the value and its max-age in seconds. When it fails, an old value goes on
        serving: keys and endpoints outlive an outage. A failure itself is never kept; only those
        who were waiting for that very fetch share it, rather than time out one after the other.
        """
        asked_at = time.monotonic()
        old = self._of(key)
        serves = old is not None and good_enough(old.value)
        if old is not None and serves and asked_at < old.fresh_until:
            return old.value
        with within(get_settings().deadline) as seconds:
            # Who has a value that serves does not wait for the one who looks for a newer one.
            if self._lock.acquire(timeout=0 if serves else max(seconds, 0)):
                try:
                    return self._fetched(key, fetch, good_enough, asked_at)
                finally:
                    self._lock.release()
        if old is not None:
            return old.value
        raise ProviderUnavailable("Quota does not answer; try again later.", request_sent=False)

    def _of(self, key: object) -> _Document[T] | None:
        document = self._document
        return document if document is not None and document.key == key else None

    def _fetched(
        self,
        key: object,
        fetch: Callable[[], tuple[T, int | None]],
        good_enough: Callable[[T], bool],
        asked_at: float,
    ) -> T:
        now = time.monotonic()
        old = self._of(key)
        if old is not None:
            fresh = now < old.fresh_until and good_enough(old.value)
            if fresh or now < self._next_fetch:
                return old.value
            self._next_fetch = now + COOL_DOWN
        elif self._failed_at > asked_at:
            raise ProviderUnavailable("Quota cannot be reached; try again later.")
        try:
            value, max_age = fetch()
        except ProviderUnavailable:
            self._failed_at = time.monotonic()
            if old is None:
                raise
            return old.value
        except ConfigurationError:
            # No outage: Quota answers, and the project has to. So it is told to everybody, rather
            # than to one a cool-down while the others go on with what was true before.
            self._document = None
            raise
        age = min(max(DEFAULT_AGE if max_age is None else max_age, MIN_AGE), MAX_AGE)
        self._document = _Document(key=key, value=value, fresh_until=now + age)
        return value


_metadata: _Kept[Metadata] = _Kept()
_keys: _Kept[list[jwt.PyJWK]] = _Kept()


def _after_fork() -> None:
    """A lock that another thread held at the fork would be held for ever in the child."""
    _metadata.__init__()  # type: ignore[misc]
    _keys.__init__()  # type: ignore[misc]


os.register_at_fork(after_in_child=_after_fork)


def forget() -> None:
    """Drop the kept discovery document and keys, as a new process would start. For tests."""
    _metadata.clear()
    _keys.clear()


def metadata() -> Metadata:
    """Quota's discovery document, checked.

    Raises IssuerMismatch, ConfigurationError (an endpoint on a foreign origin),
    ProviderUnavailable.
    """
    settings = get_settings()

    def fetch() -> tuple[Metadata, int | None]:
        reply = public(f"{settings.base_url}/.well-known/openid-configuration")
        return _checked_metadata(reply.json or {}), reply.max_age

    return _metadata.get((settings.base_url, settings.issuer), fetch)


def _checked_metadata(document: dict[str, Any]) -> Metadata:
    settings = get_settings()
    if "issuer" not in document:
        # A page of maintenance, say. While an older document serves, that goes on.
        raise ProviderUnavailable(
            "What Quota serves is no discovery document; try again later, and check QUOTA_BASE_URL."
        )
    issuer = document["issuer"]
    if issuer not in (settings.base_url, settings.issuer) or not isinstance(issuer, str):
        raise IssuerMismatch(_issuer_advice(issuer))
    endpoints: dict[str, Any] = {}
    for name in (*_RECIPE_PATHS, "end_session_endpoint"):
        url = document.get(name)
        if url is None and name in _RECIPE_PATHS:
            url = settings.base_url + _RECIPE_PATHS[name]
        # RFC 6749 sections 3.1 and 3.2: no fragment; parameters behind one would go nowhere.
        if url is not None and (not is_trusted(url) or "#" in url):
            raise ConfigurationError(
                f"Discovery puts {name} on an origin that is neither QUOTA_BASE_URL's nor "
                "QUOTA_ISSUER's; it is not used. Set one of the two to it if it is Quota's."
            )
        endpoints[name] = url
    scopes = document.get("scopes_supported")
    return Metadata(
        issuer=issuer,
        scopes_supported=tuple(
            scope
            for scope in (scopes if isinstance(scopes, list) else ())
            # They are shown in a terminal.
            if isinstance(scope, str) and _SCOPE.fullmatch(scope)
        ),
        sends_iss=document.get("authorization_response_iss_parameter_supported") is True,
        **endpoints,
    )


def _issuer_advice(issuer: object) -> str:
    # The line will be pasted into a Python file: nothing but a plain URL may stand in it.
    if isinstance(issuer, str) and _PLAIN_URL.fullmatch(issuer) and is_acceptable(issuer):
        return (
            "Quota's discovery document names an issuer other than QUOTA_BASE_URL. If that is "
            f'Quota too, add this line to your settings: QUOTA_ISSUER = "{issuer}"'
        )
    return "Quota's discovery document names no usable issuer; check QUOTA_BASE_URL."


def origin_of(url: object) -> str:
    """Where a URL that came from the network leads, "" if nowhere.

    Only visible ASCII is in a URL (RFC 3986 section 2): other characters would be stripped, dropped
    or encoded by what reads it next, or break that.
    """
    try:
        return origin(url) if isinstance(url, str) and _URL.fullmatch(url) else ""
    except ValueError:
        return ""


def is_trusted(url: object) -> bool:
    """Is `url` on the origin of QUOTA_BASE_URL or of QUOTA_ISSUER?"""
    return origin_of(url) in get_settings().trusted_origins


def public(url: str) -> Reply:
    """A document that anybody may read; whoever answers otherwise is not Quota, or not well."""
    reply = exchange("GET", url)
    if not reply.ok:
        raise ProviderUnavailable(
            f"Quota gave no usable answer (HTTP {reply.status}); try again later, and check "
            "QUOTA_BASE_URL.",
            status=reply.status,
        )
    return reply


def signing_keys(token: object) -> list[jwt.PyJWK]:
    """Quota's keys for id_tokens; where none of them has signed `token` they are fetched once more.

    A new key need not have a new `kid`: a single one needs none (OpenID Connect Core 1.0 section
    10.1). Raises what `metadata` raises, SignInFailed if `token` is no signed JWT at all.
    """
    id_token.key_id(token)
    return published_keys(good_enough=partial(id_token.is_signed, token))


def published_keys(good_enough: Callable[[list[jwt.PyJWK]], bool] = bool) -> list[jwt.PyJWK]:
    """The usable keys that Quota publishes; if need be fetched once more for good enough ones.

    Raises what `metadata` raises.
    """
    uri = metadata().jwks_uri

    def fetch() -> tuple[list[jwt.PyJWK], int | None]:
        reply = public(uri)
        keys = id_token.usable_keys(reply.json or {})
        if not keys:
            raise ProviderUnavailable("Quota's key document holds no usable key; try again later.")
        return keys, reply.max_age

    return _keys.get(uri, fetch, good_enough=good_enough)
