"""Models that answer without a model: GET /v1/models, POST /v1/chat/completions."""

from __future__ import annotations

import json
import math
import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse

from . import ledger
from .api import ApiError, bad_request, json_view, read_json, require_token
from .models import Application, User
from .state import state
from .tools import ToolCall, chosen_call
from .webhooks import notify, notify_low

__all__ = ["chat_completions", "models"]

DEFAULT_MAX_TOKENS = 1_024
MAX_TOKENS = 1_000_000
MAX_MESSAGES = 1_000
ROLES = {"system", "developer", "user", "assistant", "tool"}
MODEL_NAME = re.compile(r"(?:(?:openai|anthropic|google)/)?[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")


@dataclass(frozen=True)
class Price:
    """Integer credits for each token; a credit is 0.000001 USD."""

    prompt: int
    completion: int


PRICES = {
    "gpt-4o-mini": Price(5, 20),
    "gpt-4o": Price(15, 60),
    "anthropic/claude-sonnet-4": Price(20, 80),
    "google/gemini-2.0-flash": Price(4, 16),
}
DEFAULT_PRICE = Price(5, 20)
"""For models that are not listed: a sandbox should answer whatever name a project uses."""


@json_view("GET")
def models(request: HttpRequest) -> JsonResponse:
    """List the models, in OpenAI's format."""
    require_token(request, "credits.read")
    listed = [
        {
            "id": name,
            "object": "model",
            "created": 1_735_689_600,
            "owned_by": name.partition("/")[0] if "/" in name else "openai",
        }
        for name in PRICES
    ]
    return JsonResponse({"object": "list", "data": listed})


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """A checked request body."""

    model: str
    prompt_tokens: int
    question: str
    max_tokens: int
    stream: bool
    #: What the answer is, where it is no text.
    call: ToolCall | None

    @property
    def price(self) -> Price:
        """What this model charges."""
        return PRICES.get(self.model.removeprefix("openai/"), DEFAULT_PRICE)

    def cost(self, completion_tokens: int) -> int:
        """Return the credits for an answer of this length."""
        return self.prompt_tokens * self.price.prompt + completion_tokens * self.price.completion


def _count_tokens(text: str) -> int:
    return math.ceil(len(text) / 4)


def _message_text(message: Any, position: int) -> str:
    """Return the text of one message. Raises a 400."""
    where = f"messages[{position}]"
    role = message.get("role") if isinstance(message, dict) else None
    if not isinstance(role, str) or role not in ROLES:
        raise bad_request(f"{where} must be an object whose role is {', '.join(sorted(ROLES))}.")
    content = message.get("content")
    if isinstance(content, str):
        return content
    if content is None and role == "assistant":
        return ""
    if not isinstance(content, list):
        raise bad_request(f"{where}.content must be a string or a list of parts.")
    texts = []
    for part in content:
        text = part.get("text", "") if isinstance(part, dict) else None
        if not isinstance(text, str):
            raise bad_request(f"{where}.content has a part that is not an object with text.")
        texts.append(text)
    return " ".join(texts)


def _read_chat(data: dict[str, Any]) -> ChatRequest:
    model = data.get("model")
    if not isinstance(model, str) or not MODEL_NAME.fullmatch(model):
        raise bad_request(
            "model must be the name of a model.",
            "Such as gpt-4o-mini or anthropic/claude-sonnet-4; GET /v1/models lists them.",
        )
    messages = data.get("messages")
    if not isinstance(messages, list) or not 1 <= len(messages) <= MAX_MESSAGES:
        raise bad_request(f"messages must be a list of 1 to {MAX_MESSAGES} messages.")
    texts = [_message_text(message, position) for position, message in enumerate(messages)]
    asked = [text for message, text in zip(messages, texts, strict=True) if _is_user(message)]
    limit = data.get("max_completion_tokens", data.get("max_tokens"))
    if limit is not None and not (type(limit) is int and 1 <= limit <= MAX_TOKENS):
        raise bad_request(f"max_tokens must be an integer from 1 to {MAX_TOKENS}.")
    temperature = data.get("temperature")
    if temperature is not None and not (
        type(temperature) in (int, float) and 0 <= temperature <= 2
    ):
        raise bad_request("temperature must be a number from 0 to 2.")
    stream = data.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise bad_request("stream must be true or false.")
    return ChatRequest(
        model=model,
        prompt_tokens=sum(_count_tokens(text) + 4 for text in texts),
        question=asked[-1] if asked else "",
        max_tokens=DEFAULT_MAX_TOKENS if limit is None else limit,
        stream=bool(stream),
        call=chosen_call(data),
    )


def _is_user(message: dict[str, Any]) -> bool:
    return bool(message["role"] == "user")


def _compose(question: str) -> str:
    """Return a friendly answer that shows the question arrived."""
    asked = " ".join(question.split())
    if len(asked) > 160:
        asked = asked[:159].rstrip() + "…"
    if not asked:
        return "Hello! Ask me anything; this sandbox answers without calling a real model."
    if re.match(r"(?i)(hi|hello|hey|good (morning|evening))\b", asked):
        opening = "Hello, and welcome!"
    elif asked.endswith("?"):
        opening = "Good question."
    else:
        opening = "Thanks, got it."
    return (
        f"{opening} You wrote: “{asked}”\n\n"
        "Here is how I would go about it. First, say in one sentence what a good result looks "
        "like. Then take the smallest step that shows whether you are on the right track, and "
        "look at what you learn before you take the next one. Most of the time that is quicker "
        "than a perfect plan.\n\n"
        "This is a made-up answer from the local Quota sandbox: no real model was called. What "
        "is real is the bill, which your sandbox wallet pays."
    )


def _tokenize(answer: str, max_tokens: int) -> tuple[list[str], bool]:
    """Return the answer in pieces of a token each, cut at the limit; and whether it was cut."""
    pieces = re.findall(r"\s*\S{1,8}", answer)
    return pieces[:max_tokens], len(pieces) > max_tokens


@json_view("POST")
def chat_completions(request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
    """Answer a chat, and charge the token's person for it.

    The most it can cost is held back before the first token, and settled to what it did cost.
    """
    token = require_token(request, "credits.spend")
    chat = _read_chat(read_json(request))
    answer = Answer(chat, token.user, token.application)
    answer.reserve()
    if chat.stream:
        return StreamingHttpResponse(
            answer.stream(),
            content_type="text/event-stream",
            headers={"Cache-Control": "no-cache"},
        )
    return JsonResponse(answer.completion(), headers={"Cache-Control": "no-store"})


#: What says in the middle of a stream that no more of it will come.
_BROKEN = 'data: {"error": {"code": "upstream_error", "message": "The model has failed."}}\n\n'


class Answer:
    """One answer on its way, and the money that goes with it."""

    def __init__(self, chat: ChatRequest, user: User, application: Application) -> None:
        self.chat = chat
        self.user = user
        self.application = application
        self.reserved = 0
        self.id = f"chatcmpl-{uuid.uuid4().hex}"
        self.created = int(time.time())
        text = chat.call.arguments if chat.call else _compose(chat.question)
        self.pieces, was_cut = _tokenize(text, chat.max_tokens)
        whole = "tool_calls" if chat.call else "stop"
        self.finish_reason = "length" if was_cut else whole

    def reserve(self) -> None:
        """Hold back the most this can cost. Raises a 402."""
        amount = self.chat.cost(self.chat.max_tokens)
        if not ledger.reserve(self.user.pk, amount):
            raise ApiError(
                402,
                "insufficient_credits",
                f"The wallet cannot cover the {amount} credits this call may cost.",
                "Buy credits, or lower max_tokens: it bounds what is reserved.",
            )
        self.reserved = amount

    def settle(self, completion_tokens: int) -> dict[str, Any]:
        """Charge for the tokens given; return the ``quota`` block."""
        cost = self.chat.cost(completion_tokens)
        before, after = ledger.settle(
            self.user.pk, self.reserved, cost, self.chat.model, self.application
        )
        self.tell(cost, before, after, completion_tokens)
        return {
            "credits_used": cost,
            "balance_before": before,
            "balance_after": after,
            "billing_mode": "user",
        }

    def tell(self, cost: int, before: int, after: int, completion_tokens: int) -> None:
        """Let the developer hear of it by webhook."""
        who = (self.user, self.application)
        notify(
            "balance.updated",
            *who,
            new_balance=after,
            amount_spent=cost,
            model=self.chat.model,
            endpoint="/v1/chat/completions",
        )
        tokens = self.usage(completion_tokens)
        model = self.chat.model
        notify("usage.completed", *who, model=model, credits_used=cost, **tokens)
        notify_low(*who, before, after)

    def usage(self, completion_tokens: int) -> dict[str, int]:
        """Return OpenAI's ``usage`` block."""
        return {
            "prompt_tokens": self.chat.prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": self.chat.prompt_tokens + completion_tokens,
        }

    def completion(self) -> dict[str, Any]:
        """Return the whole answer, charged."""
        text = "".join(self.pieces)
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if self.chat.call:
            call = replace(self.chat.call, arguments=text)
            message |= {"content": None, "tool_calls": [call.as_message()]}
        return {
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.chat.model,
            "choices": [
                {
                    "index": 0,
                    "message": message,
                    "logprobs": None,
                    "finish_reason": self.finish_reason,
                }
            ],
            "usage": self.usage(len(self.pieces)),
            "quota": self.settle(len(self.pieces)),
        }

    def stream(self) -> Iterator[str]:
        """Yield the answer as server-sent events.

        Whoever hangs up early pays for the tokens that were sent.
        """
        sent = 0
        settled = False
        try:
            yield self._chunk({"role": "assistant", **self._begin()})
            for piece in self.pieces:
                if sent == state.knobs.stream_breaks_after:
                    yield _BROKEN
                    return
                yield self._chunk(self._delta(piece))
                sent += 1
                time.sleep(state.knobs.stream_delay)
            quota = self.settle(sent)
            settled = True
            yield self._chunk({}, self.finish_reason, usage=self.usage(sent), quota=quota)
            yield "data: [DONE]\n\n"
        finally:
            if not settled:
                self.settle(sent)

    def _begin(self) -> dict[str, Any]:
        if self.chat.call is None:
            return {"content": ""}
        call = replace(self.chat.call, arguments="")
        return {"content": None, "tool_calls": [{"index": 0, **call.as_message()}]}

    def _delta(self, piece: str) -> dict[str, Any]:
        if self.chat.call is None:
            return {"content": piece}
        return {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None, **extra: Any) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        chunk = {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.chat.model,
            "choices": [choice],
        }
        return f"data: {json.dumps(chunk | extra)}\n\n"
