"""Streams as a browser gets them: part by part under ASGI, and read as server-sent events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from asgiref.testing import ApplicationCommunicator
from django.core.asgi import get_asgi_application
from django.test import Client

from tests.helpers.concurrency import run_async
from tests.sandbox_client import Person

#: The views of tests.urls_streaming, one of each kind.
VIEWS = ["stream", "astream"]
#: What an answer cost.
QUOTA: Any = {"credits_used": 1_200, "balance_after": 998_800}


def events(body: str) -> list[tuple[str, Any]]:
    """As a browser reads them."""
    found = []
    for block in body.split("\n\n")[:-1]:
        if block.startswith(":"):  # a comment
            continue
        kind, data = block.split("\n")
        found.append((kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def next_event(parts: Iterator[bytes]) -> str:
    """The next part of a response that is no comment."""
    return next(part for part in parts if not part.startswith(b":")).decode()


class AsgiRequest:
    """The other side of an ASGI server."""

    def __init__(self, person: Person | Client, path: str, method: str = "GET") -> None:
        client = person if isinstance(person, Client) else person.client
        cookie = client.cookies["sessionid"].value
        self.asgi: Any = ApplicationCommunicator(  # type: ignore[no-untyped-call]
            get_asgi_application(),
            {
                "type": "http",
                "method": method,
                "path": f"/{path}",
                "query_string": b"",
                "headers": [(b"host", b"localhost"), (b"cookie", f"sessionid={cookie}".encode())],
            },
        )

    async def ask(self) -> dict[bytes, bytes]:
        """The head of the response."""
        await self.asgi.send_input({"type": "http.request", "body": b""})
        start = await self.asgi.receive_output(20)
        assert start["status"] == 200
        return dict(start["headers"])

    async def read(self) -> str:
        """The next part of it that is no comment."""
        while (part := await self.asgi.receive_output(20))["body"].startswith(b":"):
            pass
        return str(part["body"].decode())

    async def read_all(self) -> str:
        body = ""
        while True:
            part = await self.asgi.receive_output(20)
            body += part.get("body", b"").decode()
            if not part.get("more_body"):
                await self.asgi.wait(20)
                return body

    async def leave(self) -> None:
        await self.asgi.send_input({"type": "http.disconnect"})
        await self.asgi.wait(20)


def whole_answer(person: Person | Client, view: str) -> str:
    """All that a browser reads of it."""

    async def read() -> str:
        browser = AsgiRequest(person, view)
        await browser.ask()
        return await browser.read_all()

    return str(run_async(read()))
