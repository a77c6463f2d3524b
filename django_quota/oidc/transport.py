"""HTTP exchanges with Quota: limited in time and size, without redirects, cookies and ~/.netrc.

`requests` does the HTTP, through one session of pooled connections in each process. Callers get a
`Reply` or an exception of this package, never one of `requests`.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import quote_plus

import requests
import urllib3
from django.views.decorators.debug import sensitive_variables

from django_quota.conf import get_settings
from django_quota.exceptions import ProviderUnavailable
from django_quota.secret import Secret

from .bounded_http import MAX_REPLY_BYTES, BoundedAdapter, too_large
from .network import fault, way_to
from .refusals import error_for
from .time_limit import within

POOL_SIZE = 50


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return None: for a redirect `requests` would read its whole body, to prepare the next
        request."""
        return None


@cache
def _session() -> requests.Session:
    session = _Session()
    # `network` reads the environment instead. With trust_env, requests would also look the host up
    # in ~/.netrc and replace the Authorization header, which decides which wallet pays.
    session.trust_env = False
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers["Accept"] = "application/json"
    session.headers["User-Agent"] = "django-quota"
    adapter = BoundedAdapter(pool_connections=4, pool_maxsize=POOL_SIZE)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


# After a fork (a preloading server) two processes would read the same sockets.
os.register_at_fork(after_in_child=_session.cache_clear)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """Quota's answer. `json` is the body, None if the body is not a JSON object."""

    status: int
    headers: "requests.structures.CaseInsensitiveDict[str]"
    json: dict[str, Any] | None

    @property
    def ok(self) -> bool:
        """True for a 2xx status with a JSON object."""
        return 200 <= self.status < 300 and self.json is not None

    @property
    def error_code(self) -> str:
        """The error code in the shape of RFC 6749 section 5.2 or in Quota's own; "" if none."""
        error = (self.json or {}).get("error")
        return plain_code(error.get("code") if isinstance(error, dict) else error)

    @property
    def retry_after(self) -> int | None:
        """Seconds of `Retry-After`, None if not given."""
        return retry_after(self.headers)

    @property
    def max_age(self) -> int | None:
        """Seconds of `Cache-Control: max-age` (RFC 9111 section 5.2.2.1), None if not given."""
        found = re.search(r"max-age=(\d{1,9})\b", self.headers.get("Cache-Control", "").lower())
        return int(found[1]) if found else None


def plain_code(code: object) -> str:
    """Return `code` if it looks like an error code, else "": logs and exceptions repeat it, and
    without digits it is no token."""
    return code if isinstance(code, str) and re.fullmatch(r"[a-z_]{1,64}", code) else ""


def retry_after(headers: Mapping[str, str]) -> int | None:
    """Seconds of `Retry-After` (RFC 9110 section 10.2.3), None if it is absent or a date."""
    value = headers.get("Retry-After", "")
    return int(value) if re.fullmatch(r"[0-9]{1,9}", value) else None


@sensitive_variables()
def send_request(
    method: str,
    url: str,
    *,
    bearer: str | None = None,
    basic: tuple[str, str] | None = None,
    form: dict[str, str] | None = None,
    json_body: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> Reply:
    """Send one request and read the whole reply, whatever its status.

    `bearer` is a token, `basic` a user name and password for the Authorization header. The
    exchange ends after QUOTA_DEADLINE seconds, or after the seconds left in `within`.

    Raises ProviderUnavailable, with the status None, if no usable HTTP reply arrives in time;
    ConfigurationError if the environment names an unusable proxy or certificates (`network`).
    """
    with within(get_settings().deadline) as seconds:
        if seconds <= 0:
            raise ProviderUnavailable("Quota took too long; try again later.", request_sent=False)
        connect, read = get_settings().timeout
        timeout = (min(connect, seconds), min(read, seconds))
        sent = dict(headers or {})
        if bearer is not None:
            sent["Authorization"] = Secret(f"Bearer {bearer}")
        # RFC 6749 section 2.3.1: id and secret are form-encoded before HTTP Basic's own rules.
        auth = tuple(Secret(quote_plus(part)) for part in basic) if basic else None
        options = {"headers": sent, "auth": auth, "data": form, "json": json_body}
        return _send(method, url, timeout=timeout, **options)


@sensitive_variables()
def _send(method: str, url: str, **options: Any) -> Reply:
    try:
        way = way_to(url)
        with _session().request(
            method,
            url,
            proxies={"all": way.proxy} if way.proxy else {},
            verify=way.ca,
            allow_redirects=False,  # a redirect of a token request would carry the client secret
            stream=True,
            **options,
        ) as response:
            return Reply(
                status=response.status_code,
                headers=response.headers,
                json=_json_object(_body(response)),
            )
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        failure = ProviderUnavailable(
            f"Quota cannot be reached ({fault(error) or type(error).__name__}); try again later"
            + ("." if url.startswith("https:") else ". Is the local one running?"),
            request_sent=not _is_certainly_unsent(error),
        )
    # Raised outside of the except block: as its context, the foreign exception would carry the
    # request along, and with it the secret.
    raise failure


@sensitive_variables()
def call_api(method: str, url: str, **options: Any) -> dict[str, Any]:
    """Send a request to Quota's API, and return the JSON object of a successful reply.

    `options` are those of `send_request`. Raises what `error_for` returns for any other reply, and
    what `send_request` raises.
    """
    reply = send_request(method, url, **options)
    if reply.ok:
        return reply.json or {}
    raise error_for(reply.status, reply.error_code, reply.retry_after)


def get_public(url: str) -> Reply:
    """Fetch a public JSON document.

    Raises ProviderUnavailable for every other answer: a refusal cannot be about a user here.
    """
    reply = send_request("GET", url)
    if not reply.ok:
        raise ProviderUnavailable(
            f"Quota gave no usable answer (HTTP {reply.status}); try again later, and check "
            "QUOTA_BASE_URL.",
            status=reply.status,
        )
    return reply


def _body(response: requests.Response) -> bytes:
    body = bytearray()
    for chunk in response.iter_content(65536):
        body += chunk
        # A compressed body can be larger than what came over the socket.
        if len(body) > MAX_REPLY_BYTES:
            raise too_large()
    return bytes(body)


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _is_certainly_unsent(error: Exception) -> bool:
    """True if the request certainly did not reach Quota, so that its code or token is unspent."""
    if isinstance(error, requests.ConnectTimeout):
        return True
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(reason, urllib3.exceptions.NewConnectionError)
