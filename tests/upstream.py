"""An AI that says what a test tells it to, chunk by chunk, over real HTTP."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import threading
from typing import Any, Self

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(text: str | None = None, *, finish: str | None = None, **extra: Any) -> dict[str, Any]:
    delta = {} if text is None else {"content": text}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        **extra,
    }


def last(**quota: Any) -> dict[str, Any]:
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    return chunk(finish="stop", usage=usage, quota=quota)


class Upstream:
    """Takes one call after the other; a context manager."""

    def __init__(self) -> None:
        self._orders: queue.Queue[bytes | None] = queue.Queue()
        self.hung_up = threading.Event()
        self.bearers: list[str] = []

    def say(self, *chunks: dict[str, Any]) -> None:
        for one in chunks:
            self._orders.put(b"data: " + json.dumps(one).encode() + b"\n\n")

    def end(self) -> None:
        """The answer is whole."""
        self._orders.put(b"data: [DONE]\n\n")
        self._orders.put(b"")

    def cease(self) -> None:
        """The body ends as it should, and the answer has not."""
        self._orders.put(b"")

    def cut(self) -> None:
        """The connection breaks."""
        self._orders.put(None)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.origin = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        while True:
            try:
                connection, _address = self._listener.accept()
            except OSError:
                return
            with connection:
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(65536)
        lines = head.decode("latin-1").split("\r\n")
        self.bearers += [line[7:] for line in lines if line.lower().startswith("authorization: ")]
        connection.sendall(HEAD)
        watcher = threading.Thread(target=self._watch, args=(connection,))
        watcher.start()
        while (said := self._orders.get()) is not None:
            try:
                connection.sendall(b"%x\r\n%s\r\n" % (len(said), said))
            except OSError:
                break
            if not said:
                break
        # So that the watcher ends, too.
        _shut(connection)
        watcher.join(10)

    def _watch(self, connection: socket.socket) -> None:
        """Until the other side closes."""
        with contextlib.suppress(OSError):
            while connection.recv(65536):
                pass
        self.hung_up.set()
        self._orders.put(None)


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
