"""For Pydantic AI: models that are billed to a user's wallet."""

from typing import TYPE_CHECKING, Any

from django_quota.ai import async_openai_client

from .frameworks import requires

if TYPE_CHECKING:
    from pydantic_ai.models.openai import OpenAIChatModel

__all__ = ["model"]


def model(user: Any, name: str, **options: Any) -> "OpenAIChatModel":
    """Return a `pydantic_ai.models.openai.OpenAIChatModel` whose calls `user` pays for.

    `options` are other arguments of OpenAIChatModel. Pydantic AI has only async clients, so make
    the model in async code, which a synchronous view runs by `asgiref.sync.async_to_sync`. Raises
    the errors of `async_openai_client`, and ConfigurationError if pydantic-ai is not installed.
    """
    with requires("pydantic-ai-slim[openai]"):
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.providers.openai import OpenAIProvider
    provider = OpenAIProvider(openai_client=async_openai_client(user))
    return OpenAIChatModel(name, provider=provider, **options)
