"""Streams an AI's answer to the browser as server-sent events.

There are three kinds of event (the HTML standard, "Server-sent events"), each with JSON as its
data: any number of `delta` (`text`), then either one `done` (`credits_used`, `cost`,
`balance_after`, `balance`, `state`, `finish_reason`) or one `error` (the body that a fetch() gets
for the same error: `django_quota.web.answers`).
"""

import asyncio
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, aclosing, closing, suppress
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync, sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, StreamingHttpResponse

from .exceptions import ConfigurationError
from .web import answer_events, keepalive
from .web.answer_events import AnswerEvents
from .web.closing import (
    aend_stream,
    end_stream,
    is_asynchronous,
    running_loop,
)

if TYPE_CHECKING:
    from openai import AsyncStream, Stream

__all__ = ["stream_response"]


class EventStreamResponse(StreamingHttpResponse):
    """Server-sent events: each is sent at once, and the stream ends with the connection.

    Django leaves three things open under ASGI. It would collect a synchronous iterator before it
    sends anything; here the request's own thread produces each event. It would leave an
    asynchronous iterator to the garbage collector when the browser goes away; here it is closed. So
    is a response that is never read, because the browser went away before its headers were sent.

    However it ends, `source` is closed: by `__aiter__` if an ASGI server has read some or all of
    it, by `close` under WSGI, and by `_abandon` if nobody has read or closed it.
    """

    def __init__(
        self, events: Iterator[str] | AsyncIterator[str], source: Any, answer: AnswerEvents
    ) -> None:
        super().__init__(events, content_type="text/event-stream")
        self._events: Any = events
        self._source = source
        self._answer = answer
        # `self.is_async` describes the content, which a middleware may have wrapped.
        self._has_async_source = bool(is_asynchronous(source))
        loop = running_loop() if self._has_async_source else None
        self._abandoned = weakref.finalize(self, _abandon, source, loop)
        self._abandoned.atexit = False  # at exit no thread can be started any more
        self["Cache-Control"] = "no-store, private"
        self["X-Accel-Buffering"] = "no"  # or nginx would collect the events
        self["Content-Encoding"] = "identity"  # or GZipMiddleware of Django 5.2 would

    async def __aiter__(self) -> AsyncIterator[bytes]:
        parts: Any = self.streaming_content
        try:
            if self.is_async:
                async for part in parts:
                    yield part
            else:
                next_part: Any = sync_to_async(next)
                while (part := await next_part(parts, None)) is not None:
                    yield part
        except (asyncio.CancelledError, GeneratorExit):
            if not self._has_async_source:
                self._answer.reader_gone = True
                keepalive.cut_connection(self._source)
            raise
        finally:
            # The server does not call `close` if the task is cancelled or sending fails.
            await self._aend()

    def close(self) -> None:
        """Called by the server at the end of most requests."""
        try:
            if (loop := running_loop()) is not None:  # in Django's AsyncClient
                self._closing = loop.create_task(self._aend())
            elif self._has_async_source:
                async_to_sync(self._aend)()
            else:
                self._end()
        finally:
            super().close()

    def _end(self) -> None:
        self._abandoned.detach()
        try:
            self._events.close()
            end_stream(self._source)  # `_events` has not ended it if it was never started
        finally:
            answer_events.close_idle_connections()

    async def _aend(self) -> None:
        if not self._has_async_source:
            return await sync_to_async(self._end)()
        self._abandoned.detach()
        try:
            with suppress(RuntimeError):  # a middleware's task still waits for the next event
                await self._events.aclose()
            await aend_stream(self._source)
        finally:
            await sync_to_async(answer_events.close_idle_connections)()


def _abandon(*how: Any) -> None:
    """End a stream that nobody reads: its request was cancelled, or a middleware failed."""
    # In a thread, as the garbage collector may run this anywhere, also on the event loop.
    threading.Thread(target=_end_abandoned, args=how, name="django_quota-abandoned").start()


def _end_abandoned(source: Any, loop: asyncio.AbstractEventLoop | None) -> None:
    try:
        if loop is None:
            end_stream(source)
        elif not loop.is_closed():
            asyncio.run_coroutine_threadsafe(aend_stream(source), loop)
    finally:
        answer_events.close_idle_connections()


def stream_response(
    request: HttpRequest, stream: "Stream[Any] | AsyncStream[Any]"
) -> EventStreamResponse:
    """Return a response that sends `stream`, made by `openai_client(request.user)`, to the browser.

    For sync clients, and for async clients under ASGI. Text is forwarded as it comes. If the
    browser goes away, the stream is closed, so that Quota stops the call. The client has recorded
    the usage before the `done` event is sent, so the next balance shown is right. An error on the
    way is sent to the browser as an event, and logged.

    While the model is silent, a comment is sent every few seconds (`keepalive.SILENCE_SECONDS`): it
    keeps proxies from closing the connection, and shows a WSGI server that the browser has gone
    away. A HEAD request gets the headers, and the stream is closed at once.

    `stream` may be wrapped by tracing. Only the wrapper's public attributes are read.

    What a call raises before its stream begins, the call itself raises. Raises ConfigurationError,
    and ends the call at Quota, if `stream` is not a stream, or is async under WSGI, where the event
    loop ends with the view.
    """
    # The requests of Django REST framework and of adrf wrap Django's own.
    request = getattr(request, "_request", request)
    is_async = is_asynchronous(stream)
    if advice := _advice(request, is_async):
        _end_refused_call(stream)
        raise ConfigurationError(advice)
    answer = AnswerEvents(request)
    events: Any = (_aevents if is_async else _events)(answer, stream)
    return EventStreamResponse(events, stream, answer)


def _advice(request: HttpRequest, is_async: bool | None) -> str:
    """Why the stream cannot be sent, and what to do about it; "" if it can be sent."""
    if is_async is None:
        return "This is not a stream. Call the AI with stream=True, and with await in async code."
    if is_async and not isinstance(request, ASGIRequest):
        return (
            "An async stream cannot outlive its view under WSGI. Use openai_client in a "
            "synchronous view, or an ASGI server."
        )
    return ""


def _end_refused_call(stream: Any) -> None:
    """End the call at Quota, which would continue unread."""
    loop = running_loop()
    if is_asynchronous(stream):
        # At once, as the loop of a view under WSGI may end before it has closed the stream.
        keepalive.cut_connection(stream)
        if loop is not None:
            task = loop.create_task(aend_stream(stream))
            _closing_tasks.add(task)
            task.add_done_callback(_closing_tasks.discard)
    elif loop is None:
        end_stream(stream)
    else:
        _abandon(stream, None)


#: The streams that are being closed: the event loop keeps only weak references to its tasks.
_closing_tasks: set[asyncio.Task[None]] = set()


def _events(answer: AnswerEvents, stream: Any) -> Iterator[str]:
    if answer.head_only:
        return
    try:
        answer_events.close_idle_connections()
        with ExitStack() as ends:
            ends.callback(end_stream, stream)
            for chunk in ends.enter_context(closing(keepalive.read_chunks(stream))):
                if event := answer.event_of(chunk):
                    yield event
        yield answer.done_event()
    except Exception as error:
        if not answer.reader_gone:  # else the error is that we have cut the connection
            yield answer.error_event(error)


async def _aevents(answer: AnswerEvents, stream: Any) -> AsyncIterator[str]:
    if answer.head_only:
        return
    # Beside the call, so that it does not delay the first word.
    closing_task = asyncio.create_task(sync_to_async(answer_events.close_idle_connections)())
    try:
        async with AsyncExitStack() as ends:
            ends.push_async_callback(aend_stream, stream)
            chunks = await ends.enter_async_context(aclosing(keepalive.aread_chunks(stream)))
            async for chunk in chunks:
                if event := answer.event_of(chunk):
                    yield event
        yield await sync_to_async(answer.done_event)()
    except Exception as error:
        yield await sync_to_async(answer.error_event)(error)
    finally:
        await closing_task
