"""The answer to a chat request: its text, its format and its charge."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from . import ledger
from .api import ApiError
from .canned_text import compose_answer, split_into_tokens
from .chat_request import ChatRequest
from .models import Application, User
from .state import state
from .webhook_delivery import notify, notify_low_balance

__all__ = ["ChatAnswer"]

STREAM_ERROR_EVENT = (
    'data: {"error": {"code": "upstream_error", "message": "The model has failed."}}\n\n'
)


class ChatAnswer:
    """One answer, in OpenAI's format, and the credits reserved for it."""

    endpoint = "/v1/chat/completions"

    def __init__(self, chat: ChatRequest, user: User, application: Application) -> None:
        self.chat = chat
        self.user = user
        self.application = application
        self.reserved = 0
        self.id = f"chatcmpl-{uuid.uuid4().hex}"
        self.created = int(time.time())
        call = chat.tool_call
        tokens = split_into_tokens(call.arguments if call else compose_answer(chat.question))
        self.tokens = tokens[: chat.max_tokens]
        if len(tokens) > chat.max_tokens:
            self.finish_reason = "length"
        else:
            self.finish_reason = "tool_calls" if call else "stop"

    def reserve(self) -> None:
        """Reserve the most that this answer can cost. Raises a 402."""
        amount = self.chat.cost(self.chat.max_tokens)
        if not ledger.reserve(self.user.pk, amount):
            raise ApiError(
                402,
                "insufficient_credits",
                f"The wallet cannot cover the {amount} credits that this call may cost.",
                "Buy credits, or lower max_tokens, which limits what is reserved.",
            )
        self.reserved = amount

    def completion(self) -> dict[str, Any]:
        """Charge for the whole answer and return it as a ``chat.completion`` object."""
        text = "".join(self.tokens)
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if self.chat.tool_call:
            call = replace(self.chat.tool_call, arguments=text)
            message |= {"content": None, "tool_calls": [call.as_message()]}
        body = self._envelope("chat.completion", {"message": message}, self.finish_reason)
        return body | {
            "usage": self._usage(len(self.tokens)),
            "quota": self._settle(len(self.tokens)),
        }

    def stream(self) -> Iterator[str]:
        """Yield the answer as server-sent events, and charge for it at the end.

        If the client disconnects or the stream breaks, only the tokens sent are charged.
        """
        sent = 0
        settled = False
        try:
            yield self._chunk({"role": "assistant", **self._first_delta()})
            for token in self.tokens:
                if sent == state.knobs.stream_breaks_after:
                    yield STREAM_ERROR_EVENT
                    return
                yield self._chunk(self._delta(token))
                sent += 1
                time.sleep(state.knobs.stream_delay)
            quota = self._settle(sent)
            settled = True
            yield self._chunk({}, self.finish_reason, usage=self._usage(sent), quota=quota)
            yield "data: [DONE]\n\n"
        finally:
            if not settled:
                self._settle(sent)

    def _settle(self, completion_tokens: int) -> dict[str, Any]:
        """Charge for the tokens sent; return Quota's ``quota`` object."""
        cost = self.chat.cost(completion_tokens)
        before, after = ledger.settle(
            self.user.pk, self.reserved, cost, self.chat.model, self.application
        )
        self._notify(cost, before, after, completion_tokens)
        return {
            "credits_used": cost,
            "balance_before": before,
            "balance_after": after,
            "billing_mode": "user",
        }

    def _notify(self, cost: int, before: int, after: int, completion_tokens: int) -> None:
        notify(
            "balance.updated",
            self.user,
            self.application.user,
            new_balance=after,
            amount_spent=cost,
            model=self.chat.model,
            endpoint=self.endpoint,
        )
        notify(
            "usage.completed",
            self.user,
            self.application.user,
            model=self.chat.model,
            credits_used=cost,
            **self._usage(completion_tokens),
        )
        notify_low_balance(self.user, self.application, before, after)

    def _usage(self, completion_tokens: int) -> dict[str, int]:
        return {
            "prompt_tokens": self.chat.prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": self.chat.prompt_tokens + completion_tokens,
        }

    def _first_delta(self) -> dict[str, Any]:
        if self.chat.tool_call is None:
            return {"content": ""}
        call = replace(self.chat.tool_call, arguments="")
        return {"content": None, "tool_calls": [{"index": 0, **call.as_message()}]}

    def _delta(self, token: str) -> dict[str, Any]:
        if self.chat.tool_call is None:
            return {"content": token}
        return {"tool_calls": [{"index": 0, "function": {"arguments": token}}]}

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None, **extra: Any) -> str:
        chunk = self._envelope("chat.completion.chunk", {"delta": delta}, finish_reason)
        return f"data: {json.dumps(chunk | extra)}\n\n"

    def _envelope(
        self, kind: str, content: dict[str, Any], finish_reason: str | None
    ) -> dict[str, Any]:
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": finish_reason}
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.chat.model,
            "choices": [choice],
        }
