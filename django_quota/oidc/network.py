"""The proxy and the certificates for connections to Quota, from environment variables.

`requests` and the HTTP library of the OpenAI SDK read different variables, and fail differently for
wrong values. This module reads them for both libraries: the variables of `requests`, and those of
OpenSSL if they are not set.
"""

import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from urllib.parse import urlsplit
from urllib.request import getproxies

from requests.utils import DEFAULT_CA_BUNDLE_PATH, select_proxy, should_bypass_proxies

from django_quota.exceptions import ConfigurationError

#: The first one that is set names a file, or a folder with one file for each certificate.
CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
_PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_VARIABLES = (*CA_VARIABLES, *_PROXY_VARIABLES, *map(str.lower, _PROXY_VARIABLES))
#: Module that an HTTP library needs for SOCKS -> the package to install.
SOCKS_MODULES = {"socks": "requests[socks]", "socksio": "socksio"}


@dataclass(frozen=True, kw_only=True)
class Way:
    """How to reach a URL.

    `proxy` is a URL, which may contain a password, or None; `ca` is a file or a folder of
    certificates.
    """

    proxy: str | None = field(repr=False)
    ca: str

    def tls(self) -> ssl.SSLContext:
        """Return a TLS context with these certificates, for libraries that take no path."""
        return _context(self.ca)


def way_to(url: str) -> Way:
    """Return the proxy and the certificates for `url`.

    They come from HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, in lower case first, and from
    CA_VARIABLES. Raises ConfigurationError, naming the variable, if a value is unusable.
    """
    parts = urlsplit(url)
    environment = tuple(map(os.environ.get, _VARIABLES))
    return _way_to(f"{parts.scheme}://{parts.netloc}", environment)


# Cached: finding out takes a millisecond, and every AI client and every exchange needs it.
@lru_cache(maxsize=16)
def _way_to(origin: str, environment: tuple[str | None, ...]) -> Way:
    return Way(proxy=_proxy(origin), ca=_certificates())


def _proxy(url: str) -> str | None:
    if should_bypass_proxies(url, no_proxy=None):
        return None
    proxies = {scheme: proxy for scheme, proxy in getproxies().items() if scheme != "no"}
    proxy = select_proxy(url, proxies)
    if not proxy:
        return None
    scheme = urlsplit(url).scheme
    variable = f"{scheme if scheme in proxies else 'all'}_proxy".upper()
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    _require_usable(proxy, variable)
    return proxy


def _require_usable(proxy: str, variable: str) -> None:
    instead = "or name the host of QUOTA_BASE_URL in NO_PROXY"
    try:
        parts = urlsplit(proxy)
        usable = bool(parts.hostname) and (parts.port or 0) >= 0  # raises for an invalid port
    except ValueError:
        usable = False
    if not usable or parts.scheme not in ("http", "https", "socks5", "socks5h"):
        raise ConfigurationError(
            f"{variable} in the environment is not the URL of a usable proxy: write it as "
            f"http://host:port or socks5h://host:port, {instead}."
        )
    missing = [name for module, name in SOCKS_MODULES.items() if find_spec(module) is None]
    if parts.scheme.startswith("socks") and missing:
        packages = " ".join(f'"{name}"' for name in missing)
        raise ConfigurationError(
            f"{variable} in the environment names a SOCKS proxy, which needs a missing package: "
            f"pip install {packages}, {instead}."
        )


def _certificates() -> str:
    for variable in CA_VARIABLES:
        if path := os.environ.get(variable):
            try:
                _context(path)
            except OSError:  # includes ssl.SSLError
                raise ConfigurationError(
                    f"{variable} in the environment names {path!r}, which has no readable "
                    "certificates: correct the path to a PEM file, or unset the variable."
                ) from None
            return path
    return DEFAULT_CA_BUNDLE_PATH


@lru_cache(maxsize=4)
def _context(path: str) -> ssl.SSLContext:
    if os.path.isdir(path):
        return ssl.create_default_context(capath=path)
    return ssl.create_default_context(cafile=path)


def fault(error: BaseException) -> str:
    """Return why the network failed, in a few words for the log; "" if unknown."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError):
            return f"TLS: {getattr(cause, 'reason', None) or 'no connection'}"
        if isinstance(cause, socket.gaierror):
            return "DNS: no such host"
        if isinstance(cause, ConnectionRefusedError):
            return "connection refused"
        if isinstance(cause, TimeoutError) or "Timeout" in type(cause).__name__:
            return "timed out"
    return ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield `error` and its causes, the nearest first."""
    waiting, seen = [error], set[int]()
    while waiting:
        cause = waiting.pop(0)
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        inner = cause.exceptions if isinstance(cause, BaseExceptionGroup) else ()
        reason = getattr(cause, "reason", None)
        nested = [cause.__cause__, cause.__context__, reason, *cause.args, *inner]
        waiting += [one for one in nested if isinstance(one, BaseException)]
