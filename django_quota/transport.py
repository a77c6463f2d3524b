"""One HTTP exchange with Quota, bounded in every direction.

`requests` does the HTTP. What it leaves open is closed here: one pooled session a process, a
deadline for the exchange as a whole (its own time-outs bound only each wait, so a server that
drips a byte at a time could hold a worker for ever), a size limit, no redirects, no cookies, no
credentials from ~/.netrc, and no exception of `requests` ever reaching a caller.
"""

import http.client
import io
import json
import math
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
import urllib3
from django.views.decorators.debug import sensitive_variables
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase

from .conf import get_settings
from .exceptions import (
    InsufficientCredits,
    InsufficientScope,
    ProviderUnavailable,
    RateLimited,
    RequestRefused,
)

__all__ = ["MAX_REPLY_BYTES", "Reply", "call", "exchange", "within"]

#: Far above any honest reply; a discovery document is 2 kB.
MAX_REPLY_BYTES = 1_000_000
#: What the status line, the headers and the framing of chunks may take beside it.
MAX_HEADER_BYTES = 200_000
POOL_SIZE = 50
MIN_SECONDS_TO_SEND = 0.1

_deadline: ContextVar[float] = ContextVar("django_quota_deadline")


@contextmanager
def within(seconds: float, *, nested: bool = True) -> Iterator[float]:
    """All exchanges inside take `seconds` together at most; an outer bound that is nearer holds,
    unless `nested` is False.

    Gives the seconds that are left.
    """
    now = time.monotonic()
    ends = min(now + seconds, _deadline.get(math.inf) if nested else math.inf)
    reset = _deadline.set(ends)
    try:
        yield ends - now
    finally:
        _deadline.reset(reset)


class _BoundedReader(io.RawIOBase):
    """The receiving side of a socket, for one answer: it stops at the deadline of the exchange and
    at the size of a reply. Here, as what is above it trusts what the answer says of itself: a chunk
    of the size -1 is read to its end, and trailers have none."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw = raw
        self._sock = sock
        self._read_timeout = sock.gettimeout() or get_settings().deadline
        self._deadline = _deadline.get()
        self._left = MAX_REPLY_BYTES + MAX_HEADER_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the exchange took longer than its deadline")
        self._sock.settimeout(min(left, self._read_timeout))
        count = self._raw.readinto(buffer)
        self._left -= count or 0
        if self._left < 0:
            raise _too_large()
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        # Headers and body are both read through `fp`, so this one place bounds them both.
        self.fp = io.BufferedReader(_BoundedReader(self.fp.detach(), sock))


class _HTTPConnection(urllib3.connection.HTTPConnection):
    response_class = _Response

    def connect(self) -> None:
        super().connect()
        _require_time_to_send(self)


class _HTTPSConnection(urllib3.connection.HTTPSConnection):
    response_class = _Response

    def connect(self) -> None:
        super().connect()
        _require_time_to_send(self)


def _require_time_to_send(connection: urllib3.connection.HTTPConnection) -> None:
    """Looking up the name, and each address in turn, have time-outs of their own. What would be
    sent too late to read the answer is not sent: a refresh token stays unspent."""
    if _deadline.get() - time.monotonic() < MIN_SECONDS_TO_SEND:
        raise urllib3.exceptions.NewConnectionError(connection, "connected too late")


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


_POOLS = {"http": _HTTPPool, "https": _HTTPSPool}


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """None, ever: else requests reads a redirect's whole body to prepare the next request."""
        return None


class _Bearer(AuthBase):
    """The bearer of this request, or nobody.

    Always passed: without an `auth`, requests would look the host up in ~/.netrc and replace the
    Authorization header, that is, the wallet that pays.
    """

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


@cache
def _session() -> requests.Session:
    session = _Session()
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers["Accept"] = "application/json"
    session.headers["User-Agent"] = "django-quota"
    adapter = _Adapter(pool_connections=4, pool_maxsize=POOL_SIZE)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


# Sockets inherited over a fork (a preloading server) would be read by two processes at once.
os.register_at_fork(after_in_child=_session.cache_clear)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """Quota's answer. `json` is the body, None if that is not a JSON object."""

    status: int
    headers: "requests.structures.CaseInsensitiveDict[str]"
    json: dict[str, Any] | None

    @property
    def ok(self) -> bool:
        """A success with a JSON object in it."""
        return 200 <= self.status < 300 and self.json is not None

    @property
    def error_code(self) -> str:
        """Quota's error code, from RFC 6749 section 5.2's shape or from Quota's own; else ""."""
        error = (self.json or {}).get("error")
        code = error.get("code") if isinstance(error, dict) else error
        # It goes into logs and exceptions, so it must look like a code and not like a message.
        return code if isinstance(code, str) and re.fullmatch(r"[a-z_]{1,64}", code) else ""

    @property
    def max_age(self) -> int | None:
        """Seconds of `Cache-Control: max-age` (RFC 9111 section 5.2.2.1), None if not given."""
        found = re.search(r"max-age=(\d{1,9})\b", self.headers.get("Cache-Control", "").lower())
        return int(found[1]) if found else None


def retry_after(headers: Mapping[str, str]) -> int | None:
    """Seconds of `Retry-After` (RFC 9110 section 10.2.3), None if absent or a date."""
    value = headers.get("Retry-After", "")
    return int(value) if re.fullmatch(r"[0-9]{1,9}", value) else None


@sensitive_variables()
def exchange(
    method: str,
    url: str,
    *,
    bearer: str | None = None,
    form: dict[str, str] | None = None,
    json_body: dict[str, Any] | None = None,
) -> Reply:
    """Send one request and read the whole reply, whatever its status.

    It takes QUOTA_DEADLINE seconds at most, or what is left of `within`. Raises
    ProviderUnavailable when there is no usable HTTP reply in time; only then is its `status`
    None.
    """
    with within(get_settings().deadline) as seconds:
        if seconds <= 0:
            raise ProviderUnavailable("Quota took too long; try again later.", request_sent=False)
        connect, read = get_settings().timeout
        timeout = (min(connect, seconds), min(read, seconds))
        return _send(method, url, timeout, bearer=bearer, form=form, json_body=json_body)


@sensitive_variables()
def _send(
    method: str,
    url: str,
    timeout: tuple[float, float],
    *,
    bearer: str | None,
    form: dict[str, str] | None,
    json_body: dict[str, Any] | None,
) -> Reply:
    try:
        with _session().request(
            method,
            url,
            data=form,
            json=json_body,
            auth=_Bearer(bearer),
            timeout=timeout,
            allow_redirects=False,  # a redirected token request would take the secret along
            stream=True,
        ) as response:
            return Reply(
                status=response.status_code,
                headers=response.headers,
                json=_json_object(_body(response)),
            )
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        failure = ProviderUnavailable(
            f"Quota cannot be reached ({type(error).__name__}); try again later"
            + ("." if url.startswith("https:") else ". Is the local one running?"),
            request_sent=not _never_left(error),
        )
    # Only here, where the foreign exception is gone: it holds the socket, and the request, which
    # holds the secret.
    raise failure


@sensitive_variables()
def call(method: str, url: str, **options: Any) -> Reply:
    """`exchange` for a resource of the API: a success with a JSON object, or a typed error.

    Raises RateLimited (429), ProviderUnavailable (5xx, redirects, not JSON), InsufficientCredits
    (402), InsufficientScope (403 `insufficient_scope`), RequestRefused (every other 4xx);
    quota-protocol section 9.
    """
    reply = exchange(method, url, **options)
    if reply.ok:
        return reply
    code = reply.error_code
    if reply.status == 429:
        raise RateLimited(
            "Quota is limiting our rate; try again later.", retry_after=retry_after(reply.headers)
        )
    if reply.status == 402:
        raise InsufficientCredits("The wallet cannot cover this; let the user buy credits.")
    if reply.status == 403 and code == "insufficient_scope":
        raise InsufficientScope("The user's token lacks a scope; let them sign in again.")
    if 400 <= reply.status < 500:
        raise RequestRefused(
            f"Quota refused the request: HTTP {reply.status} {code}".rstrip() + ".",
            status=reply.status,
            provider_code=code,
        )
    raise ProviderUnavailable(
        f"Quota gave no usable answer (HTTP {reply.status}); try again later.",
        status=reply.status,
    )


def _body(response: requests.Response) -> bytes:
    body = bytearray()
    for chunk in response.iter_content(65536):
        body += chunk
        if len(body) > MAX_REPLY_BYTES:
            raise _too_large()
    return bytes(body)


def _too_large() -> ProviderUnavailable:
    return ProviderUnavailable("Quota's answer is too large; check QUOTA_BASE_URL.")


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _never_left(error: Exception) -> bool:
    """Did the request certainly not reach Quota? Then what it carried is unspent."""
    if isinstance(error, requests.ConnectTimeout):
        return True
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(reason, urllib3.exceptions.NewConnectionError)
