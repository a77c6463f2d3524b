"""An AI's answer on its way to a browser: a completion stream as server-sent events.

Three kinds of event (the HTML standard, "Server-sent events"), each with JSON as its data: any
number of `delta` (`text`), then one `done` (`credits_used`, `cost`, `balance_after`, `balance`,
`state`, `finish_reason`), or one `error` (the body that a fetch() would have got:
`django_quota.answers`).
"""

import asyncio
import json
import logging
import socket
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, closing, suppress
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync, sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db import connections
from django.http import HttpRequest, StreamingHttpResponse
from django.utils.translation import gettext as _

from .answers import error_answer
from .balances import forget_balance
from .exceptions import ConfigurationError, ProviderUnavailable, QuotaError
from .usage import Usage, record_unpriced, record_usage

if TYPE_CHECKING:
    from openai import AsyncStream, Stream

__all__ = ["EventStreamResponse", "stream_response"]

logger = logging.getLogger("django_quota.streaming")


class EventStreamResponse(StreamingHttpResponse):
    """Server-sent events, each sent at once, and closed with the connection.

    Three things that Django leaves open under ASGI: a synchronous iterator is not collected first,
    but asked for one event after the other, in the request's own thread; an asynchronous one is
    closed when the browser goes away, not when somebody collects the garbage; and so is a response
    that nobody takes, as the browser went away before its head. Whatever the end is, `source` is
    closed and what it cost is recorded, once: by `__aiter__` where an ASGI server has read it, to
    its end or not; by `close` under WSGI; by `_abandon` where nobody has taken or closed it.
    """

    def __init__(
        self, events: Iterator[str] | AsyncIterator[str], source: Any, told: "_Told"
    ) -> None:
        super().__init__(events, content_type="text/event-stream")
        self._events: Any = events
        self._source = source
        self._told = told
        # Not `self.is_async`, which is about the content: a middleware may have wrapped it.
        self._of_async = hasattr(source, "__aiter__")
        loop = asyncio._get_running_loop() if self._of_async else None
        self._abandoned = weakref.finalize(self, _abandon, source, told, loop)
        self._abandoned.atexit = False  # when no thread can be started any more
        self["Cache-Control"] = "no-store, private"
        self["X-Accel-Buffering"] = "no"  # nginx would collect them, too
        self["Content-Encoding"] = "identity"  # and so would GZipMiddleware of Django 5.2

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
        except (asyncio.CancelledError, GeneratorExit):
            if not self._of_async:
                self._told.left = True
                _hang_up(self._source)
            raise
        finally:
            # Here, too: where the task is cancelled, or sending fails, nobody calls `close`.
            await self._aend()

    def close(self) -> None:
        """Called by the server at the end of most requests."""
        try:
            if (loop := asyncio._get_running_loop()) is not None:  # of Django's AsyncClient
                self._closing = loop.create_task(self._aend())
            elif self._of_async:
                async_to_sync(self._aend)()
            else:
                self._end()
        finally:
            super().close()

    def _end(self) -> None:
        self._abandoned.detach()
        try:
            self._source.close()
            self._events.close()
        finally:
            self._told.finish()

    async def _aend(self) -> None:
        if not self._of_async:
            return await sync_to_async(self._end)()
        self._abandoned.detach()
        try:
            await self._source.close()
            with suppress(RuntimeError):  # a middleware's task is still asking for the next one
                await self._events.aclose()
        finally:
            await sync_to_async(self._told.finish)()


def _abandon(source: Any, told: "_Told", loop: asyncio.AbstractEventLoop | None) -> None:
    """The end of a response that nobody took: its request was cancelled, or a middleware failed."""

    def end() -> None:
        try:
            if loop is None:
                source.close()
            elif not loop.is_closed():
                asyncio.run_coroutine_threadsafe(source.close(), loop)
        finally:
            told.finish()

    # In a thread apart: garbage may be collected anywhere, also on the event loop.
    threading.Thread(target=end, name="django_quota-abandoned").start()


def _hang_up(stream: Any) -> None:
    """Wake the thread that waits for the next word of `stream`: its reader has gone away, and
    nothing else ends the wait, nor the call at Quota."""
    response = stream.response
    if response.is_closed:  # read to its end: the connection is others' by now
        return
    network = response.extensions.get("network_stream")
    if network is None:  # a transport of the project's own; it ends with the answer
        return
    connection = network.get_extra_info("socket")
    with suppress(OSError):
        # Of TLS, too, the plain one: the thread then reads the end of the stream.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def stream_response(
    request: HttpRequest, stream: "Stream[Any] | AsyncStream[Any]"
) -> EventStreamResponse:
    """`stream`, which `openai_client(request.user)` has given, as a response for the browser.

    For sync and async clients; the async one under ASGI only. The text is forwarded as it comes;
    when the browser goes away, the stream is closed, and Quota told to stop. At the end the usage
    of whoever pays is recorded (`record_usage`), so that the balance shown next is right; of a
    stream that ended early, what is known of it; and nothing of what `developer_client` has given.
    An error on the way reaches the browser as an event, and the log.

    What a call raises before its stream begins is raised by the call itself. Raises
    ConfigurationError for an async stream under WSGI, whose event loop ends with the view.
    """
    is_async = hasattr(stream, "__aiter__")
    if is_async and not isinstance(request, ASGIRequest):
        raise ConfigurationError(
            "An async stream cannot outlive its view under WSGI. Use openai_client in a "
            "synchronous view, or an ASGI server."
        )
    told = _Told(request, stream)
    events: Any = (_aevents if is_async else _events)(told, stream)
    return EventStreamResponse(events, stream, told)


def _give_connections_back() -> None:
    """An answer may take minutes, and under ASGI every request has a thread, hence connections, of
    its own: two hundred streams would hold two hundred of them, and do nothing with them."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()


def _events(told: "_Told", stream: Any) -> Iterator[str]:
    try:
        _give_connections_back()
        with closing(stream):
            for chunk in stream:
                if text := told.text_of(chunk):
                    yield _event("delta", {"text": text})
        yield told.end()
    except Exception as error:
        if not told.left:  # we have cut the connection ourselves: nobody is there to be told
            yield told.error(error)


async def _aevents(told: "_Told", stream: Any) -> AsyncIterator[str]:
    # While the first word is on its way, which it keeps from nothing.
    giving = asyncio.create_task(sync_to_async(_give_connections_back)())
    try:
        async with aclosing(stream):
            async for chunk in stream:
                if text := told.text_of(chunk):
                    yield _event("delta", {"text": text})
        yield await sync_to_async(told.end)()
    except Exception as error:
        yield await sync_to_async(told.error)(error)
    finally:
        await giving


def _event(kind: str, data: dict[str, Any]) -> str:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"


class _Told:
    """What the chunks of one answer have told so far."""

    def __init__(self, request: HttpRequest, stream: Any) -> None:
        #: Has the browser gone away?
        self.left = False
        self._request = request
        self._payer = getattr(stream._client, "payer", None)
        self._first: Any = None
        self._last: Any = None
        self._finish_reason: str | None = None
        self._recorded = False

    def text_of(self, chunk: Any) -> str:
        """The text in a chunk; "" for the many without any."""
        self._first = self._first or chunk
        if (chunk.model_extra or {}).get("quota"):
            self._last = chunk
        # The last one, which says what it cost, need not have any.
        choices = getattr(chunk, "choices", None) or []
        for choice in choices:
            self._finish_reason = getattr(choice, "finish_reason", None) or self._finish_reason
        deltas = [getattr(choice, "delta", None) for choice in choices]
        return "".join(getattr(delta, "content", None) or "" for delta in deltas)

    def end(self) -> str:
        """The event at the end of a whole answer.

        Raises ProviderUnavailable where it has but ceased: a connection that is closed in between
        looks like its end, and so does a page of maintenance, which is no stream at all.
        """
        if self._finish_reason is None and self._last is None:
            raise ProviderUnavailable("The answer ended before its end.")
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

    def error(self, error: Exception) -> str:
        """The event for an answer that did not arrive. Whatever it was: the response has begun, so
        that no other answer can tell the browser."""
        if not isinstance(error, QuotaError):
            logger.error("an answer was cut off", exc_info=error)
            error = ProviderUnavailable("The answer was cut off by an error that is in the log.")
        self.record_if_interrupted()  # first, as the browser will ask for the balance at once
        body = error_answer(self._request, error).body
        if self._first is not None and isinstance(error, ProviderUnavailable):
            broken = _("The answer broke off before its end.")
            body["error"] |= {"message": broken, "hint": _("Please ask again.")}
        return _event("error", body)

    def finish(self) -> None:
        """At the end, whichever it is, and from whatever thread."""
        try:
            self.record_if_interrupted()
        finally:
            _give_connections_back()

    def record_if_interrupted(self) -> None:
        if not self._recorded:
            self._record(complete=False)

    def _record(self, *, complete: bool) -> Usage | None:
        """Nothing that fails here may take the answer away, which is paid for and has been read."""
        self._recorded = True
        if self._payer is None:
            return None
        try:
            if self._last is not None and (usage := record_usage(self._payer, self._last)):
                return usage
            if self._first is not None:
                record_unpriced(self._payer, self._first, complete=complete)
            else:  # it may have cost something all the same
                forget_balance(self._payer)
        except Exception:
            logger.exception("the usage of an answer could not be recorded")
        return None
