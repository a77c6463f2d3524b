"""For LangChain and LangGraph: chat models that are billed to a user's wallet."""

from typing import TYPE_CHECKING, Any

from django_quota.ai import openai_client
from django_quota.ai.factory import loopless_client

from .frameworks import UNUSED_KEY, requires

if TYPE_CHECKING:
    from langchain_openai import ChatOpenAI

__all__ = ["chat_model"]


def chat_model(user: Any, model: str, **options: Any) -> "ChatOpenAI":
    """Return a `langchain_openai.ChatOpenAI` whose calls, synchronous and async, `user` pays for.

    `options` are other arguments of ChatOpenAI. If it got a client for one side only, it would make
    the other from the environment, and the developer would pay. Raises the errors of
    `openai_client`, and ConfigurationError if langchain-openai is not installed.
    """
    with requires("langchain-openai"):
        from langchain_openai import ChatOpenAI
    client, async_client = openai_client(user), loopless_client(user)
    return ChatOpenAI(
        model=model,
        root_client=client,
        client=client.chat.completions,
        root_async_client=async_client,
        async_client=async_client.chat.completions,
        api_key=UNUSED_KEY,
        max_retries=0,
        **options,
    )
