"""Finds the user who pays for a stream, also for one that is wrapped."""

import sys
from typing import Any

from django.http import HttpRequest

from django_quota.exceptions import ImpersonationRefused
from django_quota.tokens.payer import get_payer
from django_quota.wallet.usage import noted_payer

from .closing import layers

#: Neither the stream nor a chunk names a payer. None means that no user pays.
_UNKNOWN: Any = object()


class StreamPayer:
    """The payer of a stream: named by the stream, else by its chunks, else the request's payer."""

    def __init__(self, request: HttpRequest, stream: Any) -> None:
        self._request = request
        self._named_by_stream = _payer_of(stream)

    def find(self, chunk: Any | None) -> Any | None:
        """Return the user who pays, None if no user pays. `chunk` is any chunk of the stream, None
        if there is none.

        Do not call it on the event loop: it may read the session and the database.
        """
        payer = self._named_by_stream
        if payer is _UNKNOWN:
            payer = noted_payer(chunk, _UNKNOWN)
        return self._payer_of_request() if payer is _UNKNOWN else payer

    def _payer_of_request(self) -> Any | None:
        try:
            payer = get_payer(self._request)
        except ImpersonationRefused:  # so no call was billed to the user's wallet
            return None
        return payer if getattr(payer, "is_authenticated", False) else None


def _payer_of(stream: Any) -> Any:
    """Return the user whom `stream` names, None if no client of ours that bills a user made it, or
    _UNKNOWN if a wrapper hides that."""
    found = layers(stream)
    for layer in found:
        if (payer := getattr(layer, "payer", _UNKNOWN)) is not _UNKNOWN:
            return payer
    # Not imported here, as that is slow: if the stream is the SDK's, somebody has imported it.
    sdk = sys.modules.get("openai")
    is_from_sdk = sdk is not None and isinstance(found[-1], sdk.Stream | sdk.AsyncStream)
    return None if is_from_sdk else _UNKNOWN
