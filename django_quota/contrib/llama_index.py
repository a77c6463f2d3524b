"""For LlamaIndex: language models that are billed to a user's wallet."""

from typing import TYPE_CHECKING, Any

from django_quota.ai import openai_client
from django_quota.ai.factory import loopless_client

from .frameworks import UNUSED_KEY, requires

if TYPE_CHECKING:
    from llama_index.llms.openai import OpenAI

__all__ = ["llm"]


def llm(user: Any, model: str, **options: Any) -> "OpenAI":
    """Return a `llama_index.llms.openai.OpenAI` whose calls `user` pays for, also the async ones.

    `options` are other arguments of that class. If it got a client for one side only, it would make
    the other from the environment. Raises the errors of `openai_client`, and ConfigurationError if
    llama-index-llms-openai is not installed.
    """
    with requires("llama-index-llms-openai"):
        from llama_index.llms.openai import OpenAI
    return OpenAI(
        model,
        openai_client=openai_client(user),
        async_openai_client=loopless_client(user),
        api_key=UNUSED_KEY,
        max_retries=0,
        **options,
    )
