"""What the body of a response says of a call, in every form that the network may give it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest

from django_quota.ai.reply_reader import ReplyReader
from django_quota.ai.sdk_http import httpx
from django_quota.wallet.replies import Reply, Usage
from tests.upstream import chunk, last

EVENTS = "text/event-stream"
LAST = last(credits_used=5, balance_after=95)


def read(*parts: bytes, kind: str = EVENTS, encoding: str = "identity") -> Reply | None:
    headers = {"content-type": kind, "content-encoding": encoding}
    reader = ReplyReader(httpx.Response(200, headers=headers))
    for part in parts:
        reader.feed(part)
    return reader.end()


def in_lines(event: Any, end: str) -> bytes:
    """The event with a `data` field for each line of its JSON."""
    lines = json.dumps(event, indent=1).splitlines()
    return "".join(f"data: {line}{end}" for line in lines).encode() + end.encode()


def bytes_of(body: bytes) -> Iterator[bytes]:
    return (body[at : at + 1] for at in range(len(body)))


class TestEvents:
    @pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
    def test_price_in_an_event_of_several_lines_is_read(self, end: str) -> None:
        body = in_lines(chunk("Hello"), end) + in_lines(LAST, end)
        for parts in ([body], bytes_of(body)):
            reply = read(*parts)
            assert reply and reply.usage == Usage(credits_used=5, balance_after=95)

    def test_price_in_a_last_event_without_an_end_is_read(self) -> None:
        reply = read(b"data: " + json.dumps(LAST).encode())
        assert reply and reply.usage and reply.complete

    def test_id_that_is_not_in_the_first_event_is_read(self) -> None:
        """Some providers begin with an event about their filters."""
        first = {"id": "", "choices": [], "prompt_filter_results": []}
        reply = read(*(b"data: %s\n\n" % json.dumps(e).encode() for e in (first, chunk("Hello"))))
        assert reply and reply.id == "chatcmpl-1"

    @pytest.mark.parametrize("odd", [[], {}, 7, None, True])
    def test_event_with_an_odd_type_is_read(self, odd: Any) -> None:
        reply = read(b"data: %s\n\n" % json.dumps(chunk("Hello") | {"type": odd}).encode())
        assert reply and reply.id == "chatcmpl-1"

    def test_long_event_is_put_together_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As of an image: its event is longer than the parts in which it arrives."""
        joined: list[int] = []
        real = ReplyReader._read_line

        def note(reader: ReplyReader, line: bytes) -> None:
            joined.append(len(line))
            real(reader, line)

        monkeypatch.setattr(ReplyReader, "_read_line", note)
        parts = [b'data: {"b64": "', *[b"A" * 1000] * 100, b'"}\n\n']
        reader = ReplyReader(httpx.Response(200, headers={"content-type": EVENTS}))
        for part in parts[:-1]:
            reader.feed(part)
        assert not joined
        reader.feed(parts[-1])
        assert joined == [100_018, 1]

    def test_what_came_before_damage_in_a_compressed_stream_is_read(self) -> None:
        packed = gzip.compress(b"data: %s\n\n" % json.dumps(LAST).encode())
        reply = read(packed[:-8], b"damaged!", encoding="gzip")
        assert reply and reply.usage


class TestJson:
    def test_body_is_dropped_once_it_is_read(self) -> None:
        reader = ReplyReader(httpx.Response(200, headers={"content-type": "application/json"}))
        reader.feed(json.dumps(LAST).encode())
        assert reader.end() and not reader._kept

    def test_body_that_broke_off_is_no_call(self) -> None:
        assert read(json.dumps(LAST).encode()[:-1], kind="application/json") is None
