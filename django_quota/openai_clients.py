"""The OpenAI SDK's clients, cut off from the environment. Imported lazily: see `ai`."""

from collections.abc import AsyncGenerator, Generator, Mapping
from contextvars import ContextVar
from typing import Any

import httpx2
from openai import AsyncOpenAI, OpenAI

__all__ = ["AsyncWalletClient", "WalletClient"]

#: The token of the attempt that this thread or task is making.
_token: ContextVar[str] = ContextVar("django_quota_bearer")


class _Bearer(httpx2.Auth):
    """Writes the token into the request at the last moment.

    The SDK's own way is to keep it in `FinalRequestOptions.headers`, whose `repr` shows it: to
    Django's error page, to the report that is mailed to admins, to whatever collects the local
    variables of a traceback.
    """

    def sync_auth_flow(
        self, request: httpx2.Request
    ) -> Generator[httpx2.Request, httpx2.Response, None]:
        request.headers["Authorization"] = f"Bearer {_token.get()}"
        yield request

    async def async_auth_flow(
        self, request: httpx2.Request
    ) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        request.headers["Authorization"] = f"Bearer {_token.get()}"
        yield request


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

    def _auth_headers(self, security: Any) -> dict[str, str]:
        return {}

    def _validate_headers(self, headers: Any, custom_headers: Any) -> None:
        """Nothing is missing: `_Bearer` adds it."""


class WalletClient(_WithoutEnvironment, OpenAI):
    """An `openai.OpenAI` that knows nothing but its arguments."""

    def _prepare_options(self, options: Any) -> Any:
        # Asked for at each attempt, and here, where what it raises reaches the caller unchanged.
        _token.set(self._api_key_provider() if self._api_key_provider else self.api_key)
        options.follow_redirects = False  # what is asked is for Quota and for nobody else
        return options

    def _custom_auth(self, security: Any) -> httpx2.Auth:
        return _Bearer()

    def close(self) -> None:
        """Nothing, also at the end of a `with`: the connection pool is everybody's."""


class AsyncWalletClient(_WithoutEnvironment, AsyncOpenAI):
    """An `openai.AsyncOpenAI` that knows nothing but its arguments."""

    async def _prepare_options(self, options: Any) -> Any:
        _token.set(await self._api_key_provider() if self._api_key_provider else self.api_key)
        options.follow_redirects = False
        return options

    @property
    def custom_auth(self) -> httpx2.Auth:
        return _Bearer()

    async def close(self) -> None:
        """Nothing, also at the end of a `with`: the connection pool is everybody's."""
