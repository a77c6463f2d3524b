"""For Haystack: chat generators that are billed to a user's wallet."""

from typing import TYPE_CHECKING, Any

from django_quota.ai import openai_client
from django_quota.ai.factory import loopless_client

from .frameworks import UNUSED_KEY, requires

if TYPE_CHECKING:
    from haystack.components.generators.chat import OpenAIChatGenerator

__all__ = ["chat_generator"]


def chat_generator(user: Any, model: str, **options: Any) -> "OpenAIChatGenerator":
    """Return an `OpenAIChatGenerator` whose calls, `run` and `run_async`, `user` pays for.

    `options` are other arguments of OpenAIChatGenerator. If it got a client for one side only, it
    would make the other from the environment. Raises the errors of `openai_client`, and
    ConfigurationError if haystack-ai is not installed.
    """
    with requires("haystack-ai"):
        from haystack.components.generators.chat import OpenAIChatGenerator
        from haystack.utils import Secret
    generator = OpenAIChatGenerator(Secret.from_token(UNUSED_KEY), model, **options)
    generator.client, generator.async_client = openai_client(user), loopless_client(user)
    return generator
