"""The models that a question can be put to."""

from typing import Any

from django.core.cache import cache

from django_quota.ai import openai_client
from django_quota.exceptions import QuotaError

DEFAULT_MODEL = "gpt-4o-mini"
CACHE_KEY, CACHE_SECONDS = "chat.models", 600
# Seconds for which the page waits for the list.
TIMEOUT = 5


def model_names(user: Any) -> list[str]:
    """The names that Quota lists. Only the default one if Quota cannot be asked."""
    names = cache.get(CACHE_KEY)
    if not names:
        try:
            names = [model.id for model in openai_client(user).models.list(timeout=TIMEOUT)]
        except QuotaError:
            return [DEFAULT_MODEL]
        cache.set(CACHE_KEY, names, CACHE_SECONDS)
    return names or [DEFAULT_MODEL]
