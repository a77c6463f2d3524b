"""The OpenAI SDK's clients, billed to one wallet, isolated from the environment, with our errors.

This module imports the SDK, which is slow, so `factory` imports it at the first call.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, TypeVar, get_args

from django.db import Error
from openai import AsyncOpenAI, AsyncStream, OpenAI, Stream
from openai._base_client import get_platform

from django_quota.exceptions import ProviderUnavailable, QuotaError
from django_quota.tokens.places import at_place_of_caller
from django_quota.wallet.balances import forget_balance

from .auth import AsyncWalletKey, BearerAuth, WalletKey
from .copies import NeverCopied
from .errors import CALL_ERRORS, READING_ERRORS, cause_to_show, translate
from .raw_responses import require_model, with_our_errors
from .sdk_http import httpx

logger = logging.getLogger("django_quota.openai_clients")
T = TypeVar("T")

#: The platform for the SDK's X-Stainless headers.
_platform = cache(get_platform)

#: The auth of the attempt that this thread or task is making.
_current_auth: ContextVar[BearerAuth] = ContextVar("django_quota_bearer")


class _IsolatedClient(NeverCopied):
    """Base of both clients: it ignores the OPENAI_* variables, for which the SDK has no switch.

    OPENAI_CUSTOM_HEADERS alone could replace the Authorization header, and so the wallet that pays.
    The SDK's `with_options` makes its copies with this constructor, too.
    """

    _api_key_provider: Any
    _max_retries: int
    _platform: Any

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
        # Without this, each copy of an async client, so each call, would find it out in a thread.
        self._platform = _platform()

    @property
    def max_retries(self) -> int:
        """How often a failed call is sent again. Only the constructor and `with_options` set it.

        An assignment is ignored: litellm assigns 2 to each client, and a call that is sent again
        may be billed again.
        """
        return self._max_retries

    @max_retries.setter
    def max_retries(self, number: int) -> None:
        vars(self).setdefault("_max_retries", number)

    def _auth_headers(self, security: Any) -> dict[str, str]:
        return {}

    def _validate_headers(self, headers: Any, custom_headers: Any) -> None:
        """Accept headers without Authorization, which `BearerAuth` adds later."""

    @property
    def payer(self) -> Any:
        """The user whose wallet pays; None if the developer pays."""
        return getattr(self._api_key_provider, "user", None)

    def _translate(self, error: Exception) -> Exception:
        return translate(error, user_pays=self.payer is not None)

    def _may_have_cost(self, error: Exception) -> bool:
        """Return True if Quota may have billed a call whose answer is lost, so that the cached
        balance is out of date."""
        return self.payer is not None and type(error) is ProviderUnavailable


class WalletStream(Stream[T]):
    """A stream that raises our errors, whichever SDK method made it."""

    def __init__(self, *, client: Any, **options: Any) -> None:
        super().__init__(client=client, **options)
        self._iterator = client._read_chunks(self._iterator)


class AsyncWalletStream(AsyncStream[T]):
    """`WalletStream` for async clients."""

    def __init__(self, *, client: Any, **options: Any) -> None:
        super().__init__(client=client, **options)
        self._iterator = client._read_chunks(self._iterator)

    async def aclose(self) -> None:
        """For `contextlib.aclosing`: older releases of the SDK have only `close`."""
        await self.close()


class WalletClient(_IsolatedClient, OpenAI):
    """An `openai.OpenAI` that uses only its arguments."""

    #: The class of its `api_key`, if a user pays.
    key_class = WalletKey

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # For `client.post(..., stream=True)`, which names no class.
        self._default_stream_cls = WalletStream

    def _prepare_options(self, options: Any) -> Any:
        # The SDK calls this at each attempt, and lets the errors of the key reach the caller.
        key = self._api_key_provider
        if isinstance(key, WalletKey):
            _current_auth.set(key.begin(options.method))
        else:
            _current_auth.set(BearerAuth(key() if key else self.api_key))
        options.follow_redirects = False  # the prompt is for Quota only
        return options

    def _custom_auth(self, security: Any) -> httpx.Auth:
        return _current_auth.get()

    def request(self, *args: Any, stream_cls: Any = None, **kwargs: Any) -> Any:
        """Like the SDK's `request`, with errors of `django_quota.exceptions`."""
        if stream_cls is not None:
            stream_cls = WalletStream[get_args(stream_cls)[0]]  # type: ignore[misc]
        with self._translating(CALL_ERRORS):
            return super().request(*args, stream_cls=stream_cls, **kwargs)

    def _process_response(self, *, cast_to: Any, **options: Any) -> Any:
        with self._translating(READING_ERRORS):
            response = super()._process_response(cast_to=cast_to, **options)
            return require_model(with_our_errors(response), cast_to)

    def _read_chunks(self, chunks: Iterator[Any]) -> Iterator[Any]:
        with self._translating(READING_ERRORS):
            yield from chunks

    @contextmanager
    def _translating(self, sdk_errors: tuple[type[Exception], ...]) -> Iterator[None]:
        try:
            yield
        except sdk_errors as error:
            translated = self._translate(error)
            if self._may_have_cost(translated):
                _forget_balance(self.payer)
            raise translated from cause_to_show(error)

    def close(self) -> None:
        """Do nothing, also at the end of a `with`: all clients share the connection pool."""


class AsyncWalletClient(_IsolatedClient, AsyncOpenAI):
    """An `openai.AsyncOpenAI` that uses only its arguments."""

    key_class = AsyncWalletKey

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._default_stream_cls = AsyncWalletStream

    async def _prepare_options(self, options: Any) -> Any:
        key = self._api_key_provider
        if isinstance(key, AsyncWalletKey):
            _current_auth.set(await key.begin(options.method))
        else:
            _current_auth.set(BearerAuth(await key() if key else self.api_key))
        options.follow_redirects = False
        return options

    @property
    def custom_auth(self) -> httpx.Auth:
        return _current_auth.get()

    async def request(self, *args: Any, stream_cls: Any = None, **kwargs: Any) -> Any:
        """Like the SDK's `request`, with errors of `django_quota.exceptions`."""
        if stream_cls is not None:
            stream_cls = AsyncWalletStream[get_args(stream_cls)[0]]  # type: ignore[misc]
        try:
            async with self._translating(CALL_ERRORS):
                return await super().request(*args, stream_cls=stream_cls, **kwargs)
        except asyncio.CancelledError:  # the browser went away; Quota may have billed the call
            if self.payer is not None:
                await _aforget_balance(self.payer)
            raise

    async def _process_response(self, *, cast_to: Any, **options: Any) -> Any:
        async with self._translating(READING_ERRORS):
            response = await super()._process_response(cast_to=cast_to, **options)
            return require_model(with_our_errors(response), cast_to)

    async def _read_chunks(self, chunks: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async with self._translating(READING_ERRORS):
            async for chunk in chunks:
                yield chunk

    @asynccontextmanager
    async def _translating(self, sdk_errors: tuple[type[Exception], ...]) -> AsyncIterator[None]:
        try:
            yield
        except sdk_errors as error:
            translated = self._translate(error)
            if self._may_have_cost(translated):
                await _aforget_balance(self.payer)
            raise translated from cause_to_show(error)

    async def close(self) -> None:
        """Do nothing, also at the end of a `with`: all clients share the connection pool."""


def _forget_balance(payer: Any) -> None:
    with _logging_failure():
        forget_balance(payer)


async def _aforget_balance(payer: Any) -> None:
    with _logging_failure():
        await at_place_of_caller(forget_balance)(payer)


@contextmanager
def _logging_failure() -> Iterator[None]:
    """Log a failure to forget a balance, so that it does not replace the error of the call.

    The database may be away, and the thread that reads a stream may not know the tenant.
    """
    try:
        yield
    except (Error, QuotaError) as error:
        logger.warning("a balance could not be forgotten: %s", type(error).__name__)
