"""An AI that says what a test tells it to, chunk by chunk, over real HTTP."""

from __future__ import annotations

import json
from typing import Any

from tests.tiny_server import LiveAnswer

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


class Upstream(LiveAnswer):
    """The answer of an AI to one call, at /v1/chat/completions of a `TinyServer`."""

    def __init__(self) -> None:
        super().__init__(HEAD)

    def say(self, *chunks: dict[str, Any]) -> None:
        for one in chunks:
            self._event(json.dumps(one).encode())

    def end(self) -> None:
        """The answer is whole."""
        self._event(b"[DONE]")
        self.cease()

    def cease(self) -> None:
        """The body ends as it should, and the answer has not."""
        self.write(b"0\r\n\r\n")
        self.cut()

    def _event(self, data: bytes) -> None:
        event = b"data: " + data + b"\n\n"
        self.write(b"%x\r\n%s\r\n" % (len(event), event))
