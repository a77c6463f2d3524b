"""Reads an AI's stream and reports silence, so that a comment can be sent meanwhile.

A server learns that the browser has gone away only when it sends something. While the model is
silent, because it thinks or calls a tool, there must be something else to send.
"""

import asyncio
import socket
from collections.abc import AsyncGenerator, Generator, Iterator
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from queue import SimpleQueue
from threading import Thread
from typing import Any

from django.db import connections

from django_quota.wallet.usage import left_to_record, record_call

from .closing import http_response

#: COMMENT is sent after each such time without text. A WSGI server notices at the second comment
#: that the browser has gone away (the first gets a reset), so this limits what is billed for an
#: answer that nobody reads. Proxies close an idle connection after a minute (nginx) or less.
SILENCE_SECONDS = 3
#: Clients ignore it (the HTML standard, "Server-sent events": a line that begins with a colon).
COMMENT = ": keep-alive\n\n"

_END: Any = object()


def read_chunks(stream: Any) -> Generator[Any]:
    """Yield the chunks of a synchronous stream, and None after each SILENCE_SECONDS without one.

    A thread of its own reads one chunk at a time, because a wait for the network cannot be
    interrupted in the same thread: the generators of the SDK and of the HTTP library end at the
    first time-out, and polling the socket misses what they or TLS have buffered. Raises what
    reading the stream raises. The call is recorded in this thread, whose connection is open and in
    the caller's schema.
    """
    calls: list[Any] = []
    context = copy_context()
    context.run(left_to_record.set, calls)
    requested: SimpleQueue[Future[Any] | None] = SimpleQueue()
    # A daemon thread, so that a process that ends does not wait for the model.
    thread = Thread(
        target=context.run,
        args=(_read_on_request, iter(stream), requested),
        name="django_quota-stream",
        daemon=True,
    )
    thread.start()
    try:
        while True:
            chunk: Future[Any] = Future()
            requested.put(chunk)
            while not _arrives_in_time(chunk):
                yield None
            if chunk.result() is _END:
                return
            yield chunk.result()
    finally:
        requested.put(None)
        if not chunk.done():
            cut_connection(stream)
        thread.join()
        for call in calls:
            record_call(*call)


def _arrives_in_time(chunk: Future[Any]) -> bool:
    with suppress(TimeoutError):
        chunk.exception(SILENCE_SECONDS)
    return chunk.done()


def _read_on_request(chunks: Iterator[Any], requested: "SimpleQueue[Future[Any] | None]") -> None:
    try:
        while (chunk := requested.get()) is not None:
            try:
                chunk.set_result(next(chunks, _END))
            except BaseException as error:
                chunk.set_exception(error)
    finally:
        connections.close_all()  # after an error, forgetting a balance may use a database cache


async def aread_chunks(stream: Any) -> AsyncGenerator[Any]:
    """`read_chunks` for an asynchronous stream, which needs no thread."""
    chunks = aiter(stream)
    while True:
        next_chunk = asyncio.ensure_future(anext(chunks, _END))
        try:
            while not (await asyncio.wait({next_chunk}, timeout=SILENCE_SECONDS))[0]:
                yield None
        finally:
            if not next_chunk.done():
                next_chunk.cancel()
                await asyncio.wait({next_chunk})
        if (chunk := next_chunk.result()) is _END:
            return
        yield chunk


def cut_connection(stream: Any) -> None:
    """Shut down the socket of `stream`, because the browser has gone away.

    Nothing else ends the call at Quota, or wakes the thread that waits for the next chunk.
    """
    response = http_response(stream)
    if response is None:  # a wrapper hides it: the wait ends with the next chunk
        return
    if response.is_closed:  # read to its end: another call may use the connection by now
        return
    network = response.extensions.get("network_stream")
    connection = network and network.get_extra_info("socket")
    if connection is None:  # the project's own transport: the wait ends with the answer
        return
    # The plain `shutdown`, also of a TLS socket: the thread then reads the end of the stream. The
    # socket of an event loop (asyncio.trsock) is not a socket.socket.
    socket_class = socket.socket if isinstance(connection, socket.socket) else type(connection)
    with suppress(OSError):
        socket_class.shutdown(connection, socket.SHUT_RDWR)
