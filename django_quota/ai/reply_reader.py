"""Reads what the body of an HTTP response says about a call's usage, as it passes by.

The frameworks parse the responses of our clients in many ways, and some read only a part. So the
usage is read from the bytes that all of them read.
"""

import json
import re
from contextlib import suppress
from typing import Any

from django_quota.wallet.replies import Reply

from .sdk_http import httpx

#: The events of a stream that are worth parsing: they hold the price, the token counts, the name of
#: the call, or the end of the answer. The others are text.
_TELLING = re.compile(
    rb'"quota|"usage"\s*:\s*\{|"finish_reason"\s*:\s*"'
    rb'|"type"\s*:\s*"(response\.(created|completed|incomplete|failed)|message_st(art|op))"'
)
#: The types of event that end an answer.
_ENDS = ("response.completed", "response.incomplete", "response.failed", "message_stop")


class ReplyReader:
    """Reads one response: JSON, or server-sent events (the HTML standard), compressed or not."""

    def __init__(self, response: httpx.Response) -> None:
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        self._is_json = kind.endswith("json")
        #: True for an answer that comes in parts.
        self.is_stream = kind == "text/event-stream"
        self._encoding = response.headers.get("content-encoding", "identity")
        self._kept: list[bytes] = []
        #: The parts of the line, and the data lines of the event, that are not complete yet.
        self._line: list[bytes] = []
        self._event: list[bytes] = []
        self._ends_in_cr = False
        self._has_failed = False
        self._reply = Reply(
            request_id=_printable(response.headers.get("x-request-id", "")), complete=False
        )

    def feed(self, data: bytes) -> None:
        """Read the next bytes of the body."""
        if self._is_json or (self.is_stream and self._encoding != "identity"):
            self._kept.append(data)
        elif self.is_stream:
            self._read_events(data)

    @property
    def has_price(self) -> bool:
        """True once the body has said what the call costs."""
        return self._reply.usage is not None

    def end(self) -> Reply | None:
        """Return what the body says of a call; None if it says nothing.

        A JSON response without a price and without token counts is none of a model, but that of an
        uploaded file, say.
        """
        if self._kept:
            self._read_kept()
        self._read_events(b"\n\n")  # the last event may lack its end
        reply = self._reply
        has_counts = reply.prompt_tokens or reply.completion_tokens or self.is_stream
        return reply if reply.usage or (reply.id and has_counts) else None

    def _read_kept(self) -> None:
        kept, self._kept = self._kept, []
        headers = {"content-encoding": self._encoding}
        response = httpx.Response(200, headers=headers, content=kept)
        with suppress(httpx.HTTPError):  # broken off in the middle
            if self._is_json:
                self._reply.complete = self._add(response.read()) is not None
            for part in response.iter_bytes() if self.is_stream else ():
                self._read_events(part)

    def _read_events(self, data: bytes) -> None:
        if self._ends_in_cr and data.startswith(b"\n"):  # a line end that was sent in two parts
            data = data[1:]
        self._ends_in_cr = data.endswith(b"\r")
        for part in data.splitlines(keepends=True):
            self._line.append(part)
            if part.endswith((b"\n", b"\r")):
                line = b"".join(self._line)
                self._line = []
                self._read_line(line)

    def _read_line(self, line: bytes) -> None:
        if line.startswith(b"data:"):
            self._event.append(line[5:])
        elif line in (b"\r\n", b"\n", b"\r") and self._event:
            event = b"".join(self._event).strip()
            self._event = []
            self._read_event(event)

    def _read_event(self, data: bytes) -> None:
        if data == b"[DONE]":
            self._reply.complete |= not self._has_failed
        elif not self._reply.id or _TELLING.search(data):
            event = self._add(data) or {}
            reasons = _finish_reasons(event)
            self._has_failed |= "error" in reasons
            is_end = event.get("type") in _ENDS or reasons - {"error"}
            self._reply.complete |= bool(is_end or self._reply.usage)

    def _add(self, data: bytes) -> dict[str, Any] | None:
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            return None
        if not isinstance(found, dict):
            return None
        self._reply.add(found)
        return found


def _finish_reasons(chunk: dict[str, Any]) -> set[str]:
    """Return why the answer ended, by a chunk of a chat completion; empty if it goes on."""
    choices = chunk.get("choices")
    if not isinstance(choices, list):
        return set()
    reasons = [choice.get("finish_reason") for choice in choices if isinstance(choice, dict)]
    return {reason for reason in reasons if isinstance(reason, str)}


def _printable(text: str) -> str:
    return text[:100] if text.isprintable() else ""
