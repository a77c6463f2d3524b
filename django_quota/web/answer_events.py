"""What the chunks of an AI's answer say, as events for the browser."""

import json
import logging
import time
from typing import Any

from django.db import connections
from django.http import HttpRequest
from django.utils.translation import gettext as _

from django_quota.exceptions import ProviderUnavailable, find_quota_error
from django_quota.wallet.replies import UNPRICED, Usage, read_reply

from . import keepalive
from .answers import error_details

logger = logging.getLogger("django_quota.streaming")


def close_idle_connections() -> None:
    """Close the database connections of this thread, except in a transaction.

    An answer may take minutes. Under ASGI each request has a thread with connections of its own, so
    two hundred streams would hold two hundred idle connections.
    """
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()


class AnswerEvents:
    """Turns the chunks of one answer into events."""

    def __init__(self, request: HttpRequest) -> None:
        #: True once the browser has gone away.
        self.reader_gone = False
        #: True for a HEAD request: servers read its whole body, and send nothing of it.
        self.head_only = request.method == "HEAD"
        self._request = request
        self._has_begun = False
        self._usage: Usage | None = None
        self._finish_reason: str | None = None
        self._sent_at = time.monotonic()

    def event_of(self, chunk: Any | None) -> str:
        """Return the event to send for `chunk`, "" if there is none.

        `chunk` is None after SILENCE_SECONDS without a chunk. A comment is sent then, and also
        after that time without text, as while the model thinks or writes a tool's arguments.
        """
        now = time.monotonic()
        if text := "" if chunk is None else self._text_of(chunk):
            event = _event("delta", {"text": text})
        elif chunk is None or now - self._sent_at >= keepalive.SILENCE_SECONDS:
            event = keepalive.COMMENT
        else:
            return ""
        self._sent_at = now
        return event

    def _text_of(self, chunk: Any) -> str:
        self._has_begun = True
        if (chunk.model_extra or {}).get("quota"):
            self._usage = read_reply(chunk).usage or UNPRICED
        # The last chunk, which holds the price, may have no choices.
        choices = getattr(chunk, "choices", None) or []
        for choice in choices:
            self._finish_reason = getattr(choice, "finish_reason", None) or self._finish_reason
        deltas = [getattr(choice, "delta", None) for choice in choices]
        return "".join(getattr(delta, "content", None) or "" for delta in deltas)

    def done_event(self) -> str:
        """Return the event at the end of a complete answer.

        Raises ProviderUnavailable if the answer has just stopped: a connection that is closed in
        the middle looks like the end, and so does a maintenance page, which is not a stream. Raises
        it, too, if the finish reason is an error of the model's provider.
        """
        if self._finish_reason == "error":
            raise ProviderUnavailable("The answer ended with the finish_reason error.")
        if self._finish_reason is None and self._usage is None:
            raise ProviderUnavailable("The answer stopped before its end.")
        usage = self._usage or UNPRICED
        data = {
            "credits_used": usage.credits_used,
            "cost": usage.cost,
            "balance_after": usage.balance_after,
            "balance": usage.balance,
            "state": usage.state,
            "finish_reason": self._finish_reason,
        }
        return _event("done", data)

    def error_event(self, error: Exception) -> str:
        """Return the event for an answer that failed.

        For any exception, as the response has begun: only an event can still tell the browser.
        """
        found = find_quota_error(error)
        if found is None:
            logger.error("an answer was cut off", exc_info=error)
            found = ProviderUnavailable("The answer was cut off by an error that is in the log.")
        body = error_details(self._request, found).body
        if self._has_begun and isinstance(found, ProviderUnavailable):
            broken = _("The answer broke off before its end.")
            body["error"] |= {"message": broken, "hint": _("Please ask again.")}
        return _event("error", body)


def _event(kind: str, data: dict[str, Any]) -> str:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"
