"""What the chunks of an AI's answer say: as events for the browser, and as recorded usage."""

import asyncio
import json
import logging
import time
from typing import Any

from django.db import connections
from django.http import HttpRequest
from django.utils.translation import gettext as _

from django_quota.exceptions import ProviderUnavailable, find_quota_error
from django_quota.tokens.payer import during
from django_quota.wallet.balances import forget_balance
from django_quota.wallet.usage import Usage, record_unpriced, record_usage

from . import keepalive
from .answers import error_details
from .stream_payer import StreamPayer

logger = logging.getLogger("django_quota.streaming")


def close_idle_connections() -> None:
    """Close the database connections of this thread, except in a transaction.

    An answer may take minutes. Under ASGI each request has a thread with connections of its own, so
    two hundred streams would hold two hundred idle connections.
    """
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()


class AnswerRecorder:
    """Turns the chunks of one answer into events, and records once what the answer cost."""

    def __init__(self, request: HttpRequest, stream: Any) -> None:
        #: True once the browser has gone away.
        self.reader_gone = False
        #: Keeps a reference to the task that closes a refused stream.
        self.closing_task: asyncio.Task[None] | None = None
        #: True for a HEAD request: servers read its whole body, and send nothing of it.
        self.head_only = request.method == "HEAD"
        self._request = request
        self._payer = StreamPayer(request, stream)
        self._first_chunk: Any = None
        self._priced_chunk: Any = None
        self._finish_reason: str | None = None
        self._is_recorded = False
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
        self._first_chunk = self._first_chunk or chunk
        if (chunk.model_extra or {}).get("quota"):
            self._priced_chunk = chunk
        # The last chunk, which holds the price, may have no choices.
        choices = getattr(chunk, "choices", None) or []
        for choice in choices:
            self._finish_reason = getattr(choice, "finish_reason", None) or self._finish_reason
        deltas = [getattr(choice, "delta", None) for choice in choices]
        return "".join(getattr(delta, "content", None) or "" for delta in deltas)

    def done_event(self) -> str:
        """Record the usage, and return the event at the end of a complete answer.

        Raises ProviderUnavailable if the answer has just stopped: a connection that is closed in
        the middle looks like the end, and so does a maintenance page, which is not a stream. Raises
        it, too, if the finish reason is an error of the model's provider.
        """
        if self._finish_reason == "error":
            raise ProviderUnavailable("The answer ended with the finish_reason error.")
        if self._finish_reason is None and self._priced_chunk is None:
            raise ProviderUnavailable("The answer stopped before its end.")
        usage = self._record(complete=True) or Usage(credits_used=None, balance_after=None)
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
        """Return the event for an answer that failed, and record what is known of its cost.

        For any exception, as the response has begun: only an event can still tell the browser.
        """
        found = find_quota_error(error)
        if found is None:
            logger.error("an answer was cut off", exc_info=error)
            found = ProviderUnavailable("The answer was cut off by an error that is in the log.")
        self.record_if_interrupted()  # first: the browser asks for the balance at once
        body = error_details(self._request, found).body
        if self._first_chunk is not None and isinstance(found, ProviderUnavailable):
            broken = _("The answer broke off before its end.")
            body["error"] |= {"message": broken, "hint": _("Please ask again.")}
        return _event("error", body)

    def finish(self) -> None:
        """Record an interrupted answer and close the connections; from any thread."""
        try:
            self.record_if_interrupted()
        finally:
            close_idle_connections()

    def record_if_interrupted(self) -> None:
        """Record what is known of the cost, unless that has been done."""
        if not self._is_recorded:
            self._record(complete=False)

    def _record(self, *, complete: bool) -> Usage | None:
        """Record the usage. A failure is logged: the user has paid for the answer and read it."""
        self._is_recorded = True
        try:
            with during(self._request):  # this may be another thread: it tells who acts as the user
                if (payer := self._payer.find(self._first_chunk)) is None:
                    return None
                if self._priced_chunk is not None and (
                    usage := record_usage(payer, self._priced_chunk)
                ):
                    return usage
                if self._first_chunk is not None:
                    record_unpriced(payer, self._first_chunk, complete=complete)
                else:  # the call may have cost something all the same
                    forget_balance(payer)
        except Exception:
            logger.exception("the usage of an answer could not be recorded")
        return None


def _event(kind: str, data: dict[str, Any]) -> str:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"
