"""Limits on the time and the size of an HTTP exchange, built into the connections of `requests`.

The time-outs of `requests` limit each wait on the socket, not the exchange: a server that sends a
byte at a time could occupy a worker without end. These connections stop at a deadline and at a
maximum size.
"""

import http.client
import io
import socket
import time
from typing import Any

import urllib3
from requests.adapters import HTTPAdapter

from django_quota.conf import get_settings
from django_quota.exceptions import ProviderUnavailable

from .time_limit import limit_ends_at

#: Far above any real reply: a discovery document has 2 kB.
MAX_REPLY_BYTES = 1_000_000
#: Allowed in addition for the status line, the headers and the framing of chunks.
MAX_HEADER_BYTES = 200_000
#: A request is not sent when less time than this is left for its reply.
MIN_SECONDS_TO_SEND = 0.1


def too_large() -> ProviderUnavailable:
    """The error for a reply of more than MAX_REPLY_BYTES."""
    return ProviderUnavailable("Quota's answer is too large; check QUOTA_BASE_URL.")


class _BoundedReader(io.RawIOBase):
    """The receiving side of a socket, for one reply: stops at the deadline and the maximum size.

    The limits are on the socket because http.client trusts the reply: it reads a chunk of the size
    -1 to the end of the stream, and any number of trailers.
    """

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw = raw
        self._sock = sock
        self._read_timeout = sock.gettimeout() or get_settings().deadline
        self._deadline = limit_ends_at()
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
            raise too_large()
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        # http.client reads both the headers and the body through `fp`.
        self.fp = io.BufferedReader(_BoundedReader(self.fp.detach(), sock))


class _HTTPConnection(urllib3.connection.HTTPConnection):
    response_class = _Response

    def connect(self) -> None:
        """Raise NewConnectionError if the deadline is too near to read a reply.

        The name lookup and each address have time-outs of their own, so connecting can take longer
        than the deadline. A refresh token that is not sent stays unspent.
        """
        super().connect()
        if limit_ends_at() - time.monotonic() < MIN_SECONDS_TO_SEND:
            raise urllib3.exceptions.NewConnectionError(self, "connected too late")


class _HTTPSConnection(_HTTPConnection, urllib3.connection.HTTPSConnection):
    """The same over TLS: in the method resolution order, urllib3's HTTPSConnection comes between
    our class and its base."""


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


_POOLS = {"http": _HTTPPool, "https": _HTTPSPool}


class BoundedAdapter(HTTPAdapter):
    """An adapter for a `requests` session whose connections keep the limits of this module."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager
