"""POST /v1/messages: Anthropic's format."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .client import Sandbox

BODY: dict[str, Any] = {
    "model": "anthropic/claude-sonnet-4",
    "max_tokens": 500,
    "system": "Be brief.",
    "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello there"}]}],
}


def test_whole_message_is_charged(sandbox: Sandbox, tokens: dict[str, Any]) -> None:
    reply = sandbox.post("/v1/messages", tokens["access_token"], json=BODY).json()
    assert (reply["type"], reply["role"], reply["stop_reason"]) == (
        "message",
        "assistant",
        "end_turn",
    )
    assert "Hello there" in reply["content"][0]["text"]
    usage, quota = reply["usage"], reply["quota"]
    assert quota["credits_used"] == usage["input_tokens"] * 20 + usage["output_tokens"] * 80
    assert quota["balance_after"] == 1_000_000 - quota["credits_used"]


def test_stream_ends_with_the_price(sandbox: Sandbox, tokens: dict[str, Any]) -> None:
    reply = sandbox.post("/v1/messages", tokens["access_token"], json=BODY | {"stream": True})
    events = [block.split("\ndata: ") for block in reply.text.split("\n\n") if block]
    kinds = [kind.removeprefix("event: ") for kind, _ in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-4:] == ["content_block_stop", "message_delta", "message_stop", "quota_usage"]
    last = json.loads(events[-1][1])
    words = kinds.count("content_block_delta")
    assert last["quota"]["credits_used"] > words * 80
    assert json.loads(events[-3][1])["usage"] == {"output_tokens": words}


@pytest.mark.parametrize(
    "changes", [{"max_tokens": None}, {"tools": [{"name": "x"}]}, {"messages": "Hello"}]
)
def test_bad_request_is_a_400(
    sandbox: Sandbox, tokens: dict[str, Any], changes: dict[str, Any]
) -> None:
    body = {name: value for name, value in (BODY | changes).items() if value is not None}
    assert sandbox.post("/v1/messages", tokens["access_token"], json=body).status_code == 400
