"""Records the usage of a call when the body of its response ends, however it is read.

It cuts the body of a stream when a spending limit is reached meanwhile.

A framework may read a response without the SDK's models, or read a part of it, or only close it. So
the body itself is watched.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import cast

from asgiref.sync import sync_to_async

from django_quota.exceptions import SpendingLimitReached
from django_quota.wallet.calls import Call
from django_quota.wallet.limits import DayBill, limit_error
from django_quota.wallet.replies import Reply
from django_quota.wallet.usage import arecord_call, record_call

from .reply_reader import ReplyReader
from .sdk_http import httpx


class _Body:
    """The body of one response, and whether its call has been recorded."""

    def __init__(self, call: Call, response: httpx.Response) -> None:
        self._call = call
        self._reader = ReplyReader(response)
        self._is_recorded = False
        #: A GET, such as for the list of models, costs nothing unless the response has a price.
        self._is_free = response.request.method != "POST"
        # A reply that comes whole is paid for, so a cut would save nothing.
        bills = call.bills if self._reader.is_stream else ()
        self._limited = [bill for bill in reversed(bills) if bill.limit is not None]
        self._day = next((bill for bill in bills if isinstance(bill, DayBill)), None)

    def _exceeded(self) -> SpendingLimitReached | None:
        """Return the error that ends the stream; None if it goes on, or is paid for already."""
        for bill in self._limited:
            if bill.is_reached and not self._reader.has_price:
                return limit_error(bill)
        return None

    def _end(self) -> tuple[Call, Reply | None, float] | None:
        """Return what to record; None if that has been done."""
        if self._is_recorded:
            return None
        self._is_recorded = True
        reply = self._reader.end()
        if self._is_free and (reply is None or reply.usage is None):
            return None
        return self._call, reply, time.time()


class RecordedBody(_Body, httpx.SyncByteStream):
    """A response body that records the call at its end, or when it is closed before."""

    def __init__(self, call: Call, response: httpx.Response) -> None:
        super().__init__(call, response)
        self._stream = cast(httpx.SyncByteStream, response.stream)

    def __iter__(self) -> Iterator[bytes]:
        for data in self._stream:
            self._reader.feed(data)
            if self._limited:
                self._keep_limits()
            yield data
        self._record()

    def _keep_limits(self) -> None:
        if self._day is not None and self._day.is_old:
            self._day.look()
        if error := self._exceeded():
            self.close()
            raise error

    def close(self) -> None:
        try:
            self._stream.close()
        finally:
            self._record()

    def _record(self) -> None:
        if ended := self._end():
            record_call(*ended)


class AsyncRecordedBody(_Body, httpx.AsyncByteStream):
    """`RecordedBody` for async clients."""

    def __init__(self, call: Call, response: httpx.Response) -> None:
        super().__init__(call, response)
        self._stream = cast(httpx.AsyncByteStream, response.stream)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._stream:
            self._reader.feed(data)
            if self._limited:
                await self._keep_limits()
            yield data
        await self._record()

    async def _keep_limits(self) -> None:
        if self._day is not None and self._day.is_old:
            await sync_to_async(self._day.look)()
        if error := self._exceeded():
            await self.aclose()
            raise error

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            await self._record()

    async def _record(self) -> None:
        if ended := self._end():
            # A task of its own goes on if the caller's is cancelled.
            task = asyncio.ensure_future(arecord_call(*ended))
            _tasks.add(task)
            task.add_done_callback(_tasks.discard)
            await asyncio.shield(task)


#: The recordings that are under way: the event loop keeps only weak references to its tasks.
_tasks: set[asyncio.Task[None]] = set()
