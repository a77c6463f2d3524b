"""AI calls that the signed-in user pays for."""

from typing import Any

from django_quota.ai import openai_client

MODEL = "gpt-4o-mini"
# This also limits the credits that Quota reserves in the wallet before the answer begins.
MAX_TOKENS = 500
# Seconds without a word after which a call fails. The SDK's own limit is ten minutes.
TIMEOUT = 30


def ask(user: Any, question: str, *, stream: bool = False) -> Any:
    """A completion, or with `stream` an iterator over its chunks."""
    return openai_client(user).chat.completions.create(
        model=MODEL,
        max_tokens=MAX_TOKENS,
        messages=[{"role": "user", "content": question}],
        stream=stream,
        timeout=TIMEOUT,
    )
