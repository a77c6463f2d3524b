"""An AI's answer on its way to a browser: a completion stream as server-sent events.

Three kinds of event (the HTML standard, "Server-sent events"), each with JSON as its data: any
number of `delta` (`text`), then one `done` (`credits_used`, `cost`, `balance_after`, `balance`,
`finish_reason`), or one `error` (the body that a fetch() would have got: `django_quota.answers`).
"""

import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync, sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, StreamingHttpResponse

from .answers import error_answer
from .exceptions import ConfigurationError, ProviderUnavailable, QuotaError
from .usage import Usage, record_unpriced, record_usage

if TYPE_CHECKING:
    from openai import AsyncStream, Stream

__all__ = ["EventStreamResponse", "stream_response"]

logger = logging.getLogger("django_quota.streaming")


class EventStreamResponse(StreamingHttpResponse):
    """Server-sent events, each sent at once, and closed with the connection.

    Two things that Django leaves open under ASGI: a synchronous iterator is not collected first,
    but asked for one event after the other, in the request's own thread; and an asynchronous one is
    closed when the browser goes away, not when somebody collects the garbage. `source` is closed
    with the response, also if that is never sent.
    """

    def __init__(self, events: Iterator[str] | AsyncIterator[str], source: Any) -> None:
        super().__init__(events, content_type="text/event-stream")
        self._events: Any = events
        self._source = source
        self["Cache-Control"] = "no-store, private"
        self["X-Accel-Buffering"] = "no"  # nginx would collect them, too

    async def __aiter__(self) -> AsyncIterator[bytes]:
        parts: Any = self.streaming_content
        try:
            if self.is_async:
                async for part in parts:
                    yield part
            else:
                following: Any = sync_to_async(next)
                while (part := await following(parts, None)) is not None:
                    yield part
        finally:
            if self.is_async:
                await self._events.aclose()
            else:
                await sync_to_async(self._events.close)()

    def close(self) -> None:
        """Called by the server at the end, whichever it is."""
        super().close()
        if self.is_async:
            async_to_sync(self._source.close)()
        else:
            self._source.close()


def stream_response(
    request: HttpRequest, stream: "Stream[Any] | AsyncStream[Any]"
) -> EventStreamResponse:
    """`stream`, which `openai_client(request.user)` has given, as a response for the browser.

    For sync and async clients; the async one under ASGI only. The text is forwarded as it comes;
    when the browser goes away, the stream is closed, and Quota told to stop. At the end the usage
    is recorded (`record_usage`), so that the balance shown next is right; of a stream that ended
    early, what is known of it. An error on the way reaches the browser as an event, and the log.

    What a call raises before its stream begins is raised by the call itself. Raises
    ConfigurationError for an async stream under WSGI, whose event loop ends with the view.
    """
    told = _Told(request)
    if hasattr(stream, "__aiter__"):
        if not isinstance(request, ASGIRequest):
            raise ConfigurationError(
                "An async stream cannot outlive its view under WSGI. Use openai_client in a "
                "synchronous view, or an ASGI server."
            )
        return EventStreamResponse(_aevents(told, stream), stream)
    return EventStreamResponse(_events(told, stream), stream)


def _events(told: "_Told", stream: Any) -> Iterator[str]:
    try:
        with closing(stream):
            for chunk in stream:
                if text := told.text_of(chunk):
                    yield _event("delta", {"text": text})
        yield told.end()
    except Exception as error:
        yield told.error(error)
    finally:
        told.record_if_interrupted()


async def _aevents(told: "_Told", stream: Any) -> AsyncIterator[str]:
    try:
        async with aclosing(stream):
            async for chunk in stream:
                if text := told.text_of(chunk):
                    yield _event("delta", {"text": text})
        yield await sync_to_async(told.end)()
    except Exception as error:
        yield await sync_to_async(told.error)(error)
    finally:
        await sync_to_async(told.record_if_interrupted)()


def _event(kind: str, data: dict[str, Any]) -> str:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"


class _Told:
    """What the chunks of one answer have told so far."""

    def __init__(self, request: HttpRequest) -> None:
        self._request = request
        self._first: Any = None
        self._last: Any = None
        self._finish_reason: str | None = None
        self._recorded = False

    def text_of(self, chunk: Any) -> str:
        """The text in a chunk; "" for the many without any."""
        self._first = self._first or chunk
        if (chunk.model_extra or {}).get("quota"):
            self._last = chunk
        for choice in chunk.choices:
            self._finish_reason = choice.finish_reason or self._finish_reason
        return "".join(choice.delta.content or "" for choice in chunk.choices)

    def end(self) -> str:
        """The event at the end of a whole answer."""
        usage = self._record(complete=True) or Usage(credits_used=None, balance_after=None)
        data = {
            "credits_used": usage.credits_used,
            "cost": usage.cost,
            "balance_after": usage.balance_after,
            "balance": usage.balance,
            "finish_reason": self._finish_reason,
        }
        return _event("done", data)

    def error(self, error: Exception) -> str:
        """The event for an answer that did not arrive. Whatever it was: the response has begun, so
        that no other answer can tell the browser."""
        if not isinstance(error, QuotaError):
            logger.error("an answer was cut off", exc_info=error)
            error = ProviderUnavailable("The answer was cut off by an error that is in the log.")
        return _event("error", error_answer(self._request, error).body)

    def record_if_interrupted(self) -> None:
        """At the end, whichever it is."""
        if not self._recorded and self._first is not None:
            self._record(complete=False)

    def _record(self, *, complete: bool) -> Usage | None:
        """Nothing that fails here may take the answer away, which is paid for and has been read."""
        self._recorded = True
        user = self._request.user
        try:
            if self._last is not None and (usage := record_usage(user, self._last)):
                return usage
            if self._first is not None:
                record_unpriced(user, self._first, complete=complete)
        except Exception:
            logger.exception("the usage of an answer could not be recorded")
        return None
