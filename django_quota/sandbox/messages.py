"""The Anthropic-compatible API: POST /v1/messages (quota-protocol section 14)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse

from .api import bad_request, json_view
from .chat_answer import ChatAnswer
from .chat_request import ChatRequest, read_chat_request
from .inference import answer_request
from .state import state

__all__ = ["messages"]

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens"}


@json_view("POST")
def messages(request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
    """Answer a message, and charge the wallet of the token's user, as chat completions do."""
    return answer_request(request, _read_request, MessageAnswer)


def _read_request(data: dict[str, Any]) -> ChatRequest:
    """Validate the body, as a chat request. Raises a 400."""
    if "max_tokens" not in data:
        raise bad_request("max_tokens is required: it limits what is reserved.")
    if data.get("tools"):
        raise bad_request("The local Quota has no tools in /v1/messages; use chat completions.")
    asked = data.get("messages")
    system = data.get("system")
    if system is not None and isinstance(asked, list):
        asked = [{"role": "system", "content": system}, *asked]
    return read_chat_request({**data, "messages": asked})


class MessageAnswer(ChatAnswer):
    """One answer in Anthropic's format."""

    endpoint = "/v1/messages"

    def completion(self) -> dict[str, Any]:
        """Charge for the whole answer and return it as a ``message`` object."""
        text = {"type": "text", "text": "".join(self.tokens)}
        quota = self._settle(len(self.tokens))
        return self._message([text], len(self.tokens), self._stop_reason()) | {"quota": quota}

    def _events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the events of a stream up to the last word; `self.sent` counts the words."""
        yield "message_start", {"message": self._message([], 0, None)}
        yield "content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}
        for token in self.tokens:
            delta = {"type": "text_delta", "text": token}
            yield "content_block_delta", {"index": 0, "delta": delta}
            self.sent += 1
            time.sleep(state.knobs.stream_delay)
        yield "content_block_stop", {"index": 0}

    def stream(self) -> Iterator[str]:
        """Yield the answer as server-sent events, and charge for what was sent."""
        self.sent = 0
        settled = False
        try:
            yield from (_event(kind, data) for kind, data in self._events())
            quota = self._settle(self.sent)
            settled = True
            delta = {"stop_reason": self._stop_reason(), "stop_sequence": None}
            usage = {"output_tokens": self.sent}
            yield _event("message_delta", {"delta": delta, "usage": usage})
            yield _event("message_stop", {})
            yield _event("quota_usage", {"quota": quota})
        finally:
            if not settled:
                self._settle(self.sent)

    def _stop_reason(self) -> str:
        return _STOP_REASONS[self.finish_reason]

    def _message(
        self, content: list[dict[str, Any]], output_tokens: int, stop_reason: str | None
    ) -> dict[str, Any]:
        return {
            "id": self.id.replace("chatcmpl-", "msg_"),
            "type": "message",
            "role": "assistant",
            "model": self.chat.model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": None,
            "usage": {"input_tokens": self.chat.prompt_tokens, "output_tokens": output_tokens},
        }


def _event(kind: str, data: dict[str, Any]) -> str:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n"
