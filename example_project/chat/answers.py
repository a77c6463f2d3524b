"""Asking the AI on the signed-in person's own credits."""

from collections.abc import Iterator
from typing import Any

from django.contrib.auth.models import AnonymousUser, User
from django.urls import reverse

from django_quota.ai import openai_client
from django_quota.exceptions import (
    InsufficientCredits,
    InsufficientScope,
    NotConnected,
    QuotaError,
    ReauthenticationRequired,
)
from django_quota.usage import record_usage

MODEL = "gpt-4o-mini"
# Also bounds what Quota reserves in the wallet before the answer begins.
MAX_TOKENS = 500

Event = tuple[str, dict[str, Any]]


def answer(user: User | AnonymousUser, question: str) -> Iterator[Event]:
    """Yield the answer as it comes, as (kind, data).

    `delta` (text) any number of times, then one `done` (cost and balance, as "$0.0012") or one
    `error` (message, and url and link: where to go next).
    """
    try:
        chunks = openai_client(user).chat.completions.create(
            model=MODEL,
            max_tokens=MAX_TOKENS,
            messages=[{"role": "user", "content": question}],
            stream=True,
        )
        # When the reader goes away, Django closes this generator, and this closes the stream.
        usage = None
        with chunks:
            for chunk in chunks:
                usage = record_usage(user, chunk) or usage  # the last one says what it cost
                for choice in chunk.choices:
                    if choice.delta.content:
                        yield "delta", {"text": choice.delta.content}
        yield "done", {"cost": usage.cost, "balance": usage.balance} if usage else {}
    except QuotaError as error:
        yield "error", advice(error)


def advice(error: QuotaError) -> dict[str, str]:
    """What to tell the person, and where to go from here: `message`, `url` and `link`."""
    back = f"?next={reverse('chat:chat')}"
    match error:
        case InsufficientCredits():
            return {
                "message": "Your credits do not cover this answer.",
                "url": reverse("django_quota:packages") + back,
                "link": "Buy credits",
            }
        case NotConnected():
            return {
                "message": "You have no Quota wallet connected, so nothing can pay for the answer.",
                "url": reverse("django_quota:connect") + back,
                "link": "Connect your Quota wallet",
            }
        case ReauthenticationRequired() | InsufficientScope():
            return {
                "message": "Quota no longer lets Inkwell use your credits.",
                "url": reverse("django_quota:start") + back,
                "link": "Sign in with Quota",
            }
        case _:
            return {
                "message": "The answer did not arrive. Please ask again in a moment.",
                "url": "",
                "link": "",
            }
