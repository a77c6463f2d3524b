"""The connections of async clients: one pool for each event loop, behind one transport."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

from .sdk_http import httpx


class LoopTransport(httpx.AsyncBaseTransport):
    """Sends each request through a pool that belongs to the running event loop.

    A socket can only be used in the loop that opened it. Under WSGI each request to an async view
    has a loop of its own, and so has `async_to_sync`; a client may outlive them. A pool is closed
    when its loop ends.
    """

    def __init__(self, **options: Any) -> None:
        #: The options of each `httpx.AsyncHTTPTransport`.
        self._options = options
        #: The pools, each with the generator that closes it (`_open`).
        self.pools: dict[
            asyncio.AbstractEventLoop, tuple[httpx.AsyncBaseTransport, AsyncGenerator[None]]
        ] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request` and return the response. Raises the errors of httpx."""
        return await self._pool().handle_async_request(request)

    def _pool(self) -> httpx.AsyncBaseTransport:
        loop = asyncio.get_running_loop()
        if loop not in self.pools:
            for other in list(self.pools):
                if other.is_closed():  # without `shutdown_asyncgens`, which would have removed it
                    self.pools.pop(other, None)
            self.pools[loop] = self._open(loop)
        return self.pools[loop][0]

    def _open(
        self, loop: asyncio.AbstractEventLoop
    ) -> tuple[httpx.AsyncBaseTransport, AsyncGenerator[None]]:
        """Return a pool, and the generator that closes it when the event loop ends.

        A loop that shuts down first ends the async generators that were started in it.
        """
        pool = httpx.AsyncHTTPTransport(**self._options)
        closer = self._close_with(loop, pool)
        with suppress(StopIteration):  # run it to its `yield`, without awaiting
            closer.__anext__().send(None)
        return pool, closer

    async def _close_with(
        self, loop: asyncio.AbstractEventLoop, pool: httpx.AsyncBaseTransport
    ) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            self.pools.pop(loop, None)
            await pool.aclose()
