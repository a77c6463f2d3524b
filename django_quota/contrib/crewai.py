"""For crewAI: language models that are billed to a user's wallet."""

from typing import TYPE_CHECKING, Any

from django_quota.ai import openai_client
from django_quota.ai.factory import loopless_client

from .frameworks import UNUSED_KEY, requires

if TYPE_CHECKING:
    from crewai.llms.providers.openai.completion import OpenAICompletion

__all__ = ["llm"]


def llm(user: Any, model: str, **options: Any) -> "OpenAICompletion":
    """Return a crewAI model whose calls, synchronous and async, `user` pays for.

    `options` are other arguments of `crewai.LLM`, which has none for a client. Raises the errors of
    `openai_client`, and ConfigurationError if crewai is not installed.
    """
    with requires("crewai"):
        from crewai.llms.providers.openai.completion import OpenAICompletion
    completion = OpenAICompletion(model=model, api_key=UNUSED_KEY, **options)
    completion._client, completion._async_client = openai_client(user), loopless_client(user)
    return completion
