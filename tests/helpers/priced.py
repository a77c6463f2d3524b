"""An AI whose answers all cost the same."""

from __future__ import annotations

from itertools import count
from typing import Any

from tests.tiny_server import Answer, Seen, json_answer

HELLO: Any = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
STREAM: Any = {**HELLO, "stream": True}


class PricedAnswers:
    """What a `TinyServer` answers to each call: a completion that costs `price` credits."""

    def __init__(self, price: int | None) -> None:
        self.price = price
        self._numbers = count(1)

    def __call__(self, request: Seen) -> Answer:
        number = next(self._numbers)
        quota = {} if self.price is None else {"credits_used": self.price, "balance_after": number}
        completion = {
            "id": f"chatcmpl-priced-{number}",
            "object": "chat.completion",
            "created": 1,
            "model": "gpt-4o-mini",
            "choices": [],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            "quota": quota,
        }
        return json_answer(completion)


def ask(client: Any) -> None:
    """Make one call."""
    client.chat.completions.create(**HELLO)


async def aask(client: Any) -> None:
    """Make one call."""
    await client.chat.completions.create(**HELLO)
