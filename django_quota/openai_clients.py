"""The OpenAI SDK's clients, cut off from the environment. Imported lazily: see `ai`."""

from collections.abc import Mapping
from typing import Any

from openai import AsyncOpenAI, OpenAI

__all__ = ["AsyncWalletClient", "WalletClient"]


class _WithoutEnvironment:
    """Undoes what the SDK takes from OPENAI_* variables, for which it has no switch.

    OPENAI_CUSTOM_HEADERS alone could replace the Authorization header, that is, the wallet that
    pays. The SDK's `with_options` builds its copies by this constructor too.
    """

    def __init__(
        self,
        *,
        organization: str | None = None,
        project: str | None = None,
        admin_api_key: str | None = None,
        webhook_secret: str | None = None,
        default_headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.organization = organization
        self.project = project
        self.admin_api_key = admin_api_key
        self.webhook_secret = webhook_secret
        self._custom_headers = default_headers or {}


class WalletClient(_WithoutEnvironment, OpenAI):
    """An `openai.OpenAI` that knows nothing but its arguments."""

    def close(self) -> None:
        """Nothing, also at the end of a `with`: the connection pool is everybody's."""


class AsyncWalletClient(_WithoutEnvironment, AsyncOpenAI):
    """An `openai.AsyncOpenAI` that knows nothing but its arguments."""

    async def close(self) -> None:
        """Nothing, also at the end of a `with`: the connection pool is everybody's."""
