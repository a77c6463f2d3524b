"""The Anthropic SDK's clients, billed to one wallet, for `POST /v1/messages`.

As `clients`: isolated from the environment, with our errors and one shared pool. The SDK has no
callable key, so the token comes from `WalletAuth`. Imported at the first call.
"""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, get_args

import anthropic

from django_quota.exceptions import ConfigurationError

from .auth import WalletAuth
from .copies import NeverCopied
from .errors import READING_ERRORS, cause_to_show, translate
from .raw_responses import require_model
from .sdk_http import httpx

T = TypeVar("T")
_ERRORS = (anthropic.APIError, *READING_ERRORS)

if not issubclass(anthropic.DefaultHttpxClient, httpx.Client):
    raise ConfigurationError(
        f"anthropic {anthropic.__version__} and the installed OpenAI SDK are built on different "
        "HTTP libraries. Install newer releases of both."
    )


@contextmanager
def _translating() -> Iterator[None]:
    try:
        yield
    except _ERRORS as error:
        raise translate(error, user_pays=True) from cause_to_show(error)


class _IsolatedClient(NeverCopied):
    """Base of both clients. The SDK would use ANTHROPIC_API_KEY and ANTHROPIC_CUSTOM_HEADERS."""

    def __init__(
        self,
        *,
        wallet_auth: WalletAuth | None = None,
        default_headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        # With a credential of its own, the SDK reads none from the environment.
        super().__init__(**options | {"api_key": None, "auth_token": "replaced by WalletAuth"})
        self._custom_headers = default_headers or {}
        self._wallet_auth = wallet_auth

    @property
    def custom_auth(self) -> WalletAuth | None:
        return self._wallet_auth

    def copy(self, **changes: Any) -> Any:
        """The SDK's `copy`, for the same wallet."""
        copied: Any = super().copy(**changes)  # type: ignore[misc]
        copied._wallet_auth = self._wallet_auth
        return copied

    with_options = copy


class WalletMessageStream(anthropic.Stream[T]):
    """A stream that raises our errors."""

    def __stream__(self) -> Iterator[T]:
        with _translating():
            yield from super().__stream__()


class AsyncWalletMessageStream(anthropic.AsyncStream[T]):
    """`WalletMessageStream` for async clients."""

    async def __stream__(self) -> AsyncIterator[T]:
        with _translating():
            async for event in super().__stream__():
                yield event


class WalletAnthropic(_IsolatedClient, anthropic.Anthropic):
    """An `anthropic.Anthropic` that uses only its arguments."""

    def _prepare_options(self, options: Any) -> Any:
        options.follow_redirects = False  # the prompt is for Quota only
        return options

    def request(self, *args: Any, stream_cls: Any = None, **kwargs: Any) -> Any:
        """Like the SDK's `request`, with errors of `django_quota.exceptions`."""
        if stream_cls is not None:
            stream_cls = WalletMessageStream[get_args(stream_cls)[0]]  # type: ignore[misc]
        with _translating():
            return super().request(*args, stream_cls=stream_cls, **kwargs)

    def _process_response(self, *, cast_to: Any, **options: Any) -> Any:
        return require_model(super()._process_response(cast_to=cast_to, **options), cast_to)

    def close(self) -> None:
        """Do nothing, also at the end of a `with`: all clients share the connection pool."""


class AsyncWalletAnthropic(_IsolatedClient, anthropic.AsyncAnthropic):
    """An `anthropic.AsyncAnthropic` that uses only its arguments."""

    async def _prepare_options(self, options: Any) -> Any:
        options.follow_redirects = False
        return options

    async def request(self, *args: Any, stream_cls: Any = None, **kwargs: Any) -> Any:
        """Like the SDK's `request`, with errors of `django_quota.exceptions`."""
        if stream_cls is not None:
            stream_cls = AsyncWalletMessageStream[get_args(stream_cls)[0]]  # type: ignore[misc]
        with _translating():
            return await super().request(*args, stream_cls=stream_cls, **kwargs)

    async def _process_response(self, *, cast_to: Any, **options: Any) -> Any:
        response = await super()._process_response(cast_to=cast_to, **options)
        return require_model(response, cast_to)

    async def close(self) -> None:
        """Do nothing, also at the end of a `with`: all clients share the connection pool."""
