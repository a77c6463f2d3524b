"""Validation of the body of POST /v1/chat/completions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from .api import bad_request
from .canned_text import count_tokens
from .pricing import get_price
from .tools import ToolCall, choose_tool_call

__all__ = ["ChatRequest", "read_chat_request"]

DEFAULT_MAX_TOKENS = 1_024
MAX_TOKENS = 1_000_000
MAX_MESSAGES = 1_000
#: Tokens counted for each message in addition to its text, as OpenAI does.
TOKENS_PER_MESSAGE = 4
ROLES = {"system", "developer", "user", "assistant", "tool"}
MODEL_NAME = re.compile(r"(?:(?:openai|anthropic|google)/)?[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """The validated body of a chat request."""

    model: str
    prompt_tokens: int
    #: The text of the last message of the user.
    question: str
    max_tokens: int
    stream: bool
    #: The tool call to answer with; None to answer with text.
    tool_call: ToolCall | None

    def cost(self, completion_tokens: int) -> int:
        """Return what an answer of this length costs, in credits."""
        price = get_price(self.model)
        return self.prompt_tokens * price.prompt + completion_tokens * price.completion


def read_chat_request(data: dict[str, Any]) -> ChatRequest:
    """Validate the body of a chat request. Raises a 400."""
    model = data.get("model")
    if not isinstance(model, str) or not MODEL_NAME.fullmatch(model):
        raise bad_request(
            "model must be the name of a model.",
            "Such as gpt-4o-mini or anthropic/claude-sonnet-4; GET /v1/models lists them.",
        )
    messages = data.get("messages")
    if not isinstance(messages, list) or not 1 <= len(messages) <= MAX_MESSAGES:
        raise bad_request(f"messages must be a list of 1 to {MAX_MESSAGES} messages.")
    texts = [_read_message_text(message, position) for position, message in enumerate(messages)]
    questions = [
        text for message, text in zip(messages, texts, strict=True) if message["role"] == "user"
    ]
    max_tokens = _read_max_tokens(data)
    _check_temperature(data.get("temperature"))
    stream = data.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise bad_request("stream must be true or false.")
    return ChatRequest(
        model=model,
        prompt_tokens=sum(count_tokens(text) + TOKENS_PER_MESSAGE for text in texts),
        question=questions[-1] if questions else "",
        max_tokens=max_tokens,
        stream=bool(stream),
        tool_call=choose_tool_call(data),
    )


def _read_message_text(message: Any, position: int) -> str:
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


def _read_max_tokens(data: dict[str, Any]) -> int:
    limit = data.get("max_completion_tokens", data.get("max_tokens"))
    if limit is None:
        return DEFAULT_MAX_TOKENS
    if type(limit) is not int or not 1 <= limit <= MAX_TOKENS:
        raise bad_request(f"max_tokens must be an integer from 1 to {MAX_TOKENS}.")
    return limit


def _check_temperature(temperature: Any) -> None:
    is_number = type(temperature) in (int, float)
    if temperature is not None and not (is_number and 0 <= temperature <= 2):
        raise bad_request("temperature must be a number from 0 to 2.")
