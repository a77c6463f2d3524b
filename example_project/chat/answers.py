"""Asking the AI on the signed-in person's own credits."""

from typing import Any

from django.contrib.auth.models import AnonymousUser, User

from django_quota.ai import openai_client

MODEL = "gpt-4o-mini"
# Also bounds what Quota reserves in the wallet before the answer begins.
MAX_TOKENS = 500


def ask(user: User | AnonymousUser, question: str, *, stream: bool = False) -> Any:
    """A completion, or with `stream` its chunks as they come."""
    return openai_client(user).chat.completions.create(
        model=MODEL,
        max_tokens=MAX_TOKENS,
        messages=[{"role": "user", "content": question}],
        stream=stream,
    )
