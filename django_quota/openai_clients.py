"""The OpenAI SDK's clients: billed to one wallet, cut off from the environment, with our errors.
Imported lazily: see `ai`."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, TypeVar

import httpx2
from asgiref.sync import sync_to_async
from django.views.decorators.debug import sensitive_variables
from openai import APIError, APIStatusError, AsyncOpenAI, AsyncStream, BaseModel, OpenAI, Stream
from openai._base_client import get_platform
from openai._streaming import extract_stream_chunk_type

from .balances import forget_balance
from .exceptions import (
    ConfigurationError,
    InsufficientCredits,
    InsufficientScope,
    ProviderUnavailable,
    QuotaError,
    RateLimited,
    ReauthenticationRequired,
    RequestRefused,
)
from .tokens import aget_access_token, get_access_token
from .transport import retry_after

__all__ = ["AsyncWalletClient", "AsyncWalletKey", "WalletClient", "WalletKey"]


class WalletKey:
    """The key of a client: the user's access token, asked for at each attempt."""

    def __init__(self, user: Any) -> None:
        self.user = user

    @sensitive_variables()
    def __call__(self, rejected: str | None = None) -> str:
        return get_access_token(self.user, rejected=rejected)


class AsyncWalletKey:
    """`WalletKey` for async clients."""

    def __init__(self, user: Any) -> None:
        self.user = user

    @sensitive_variables()
    async def __call__(self, rejected: str | None = None) -> str:
        return await aget_access_token(self.user, rejected=rejected)


class _Bearer(httpx2.Auth):
    """Writes the token of one attempt into the request at the last moment; where Quota refuses it,
    once more with a new one.

    The SDK's own way is to keep it in `FinalRequestOptions.headers`, whose `repr` shows it: to
    Django's error page, to the report that is mailed to admins, to whatever collects the local
    variables of a traceback. And the SDK never asks again after a 401.
    """

    def __init__(self, token: str, key: Any) -> None:
        self._token = token
        self._key = key

    def sync_auth_flow(
        self, request: httpx2.Request
    ) -> Generator[httpx2.Request, httpx2.Response, None]:
        response = yield self._signed(request, self._token)
        if response.status_code == 401 and isinstance(self._key, WalletKey):
            yield self._signed(request, self._key(rejected=self._token))

    async def async_auth_flow(
        self, request: httpx2.Request
    ) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        response = yield self._signed(request, self._token)
        if response.status_code == 401 and isinstance(self._key, AsyncWalletKey):
            yield self._signed(request, await self._key(rejected=self._token))

    @sensitive_variables()
    def _signed(self, request: httpx2.Request, token: str) -> httpx2.Request:
        request.headers["Authorization"] = f"Bearer {token}"
        # What Quota sets for one person is in the jar of the pool, which is everybody's.
        request.headers.pop("Cookie", None)
        return request


#: Codes that may come up while an answer is on its way (quota-protocol section 9).
_STATUS_OF_CODE = {
    "insufficient_credits": 402,
    "insufficient_balance": 402,
    "rate_limit": 429,
    "rate_limit_exceeded": 429,
}

#: For a header of the SDK's.
_platform = cache(get_platform)

#: Of the attempt that this thread or task is making.
_bearer: ContextVar[_Bearer] = ContextVar("django_quota_bearer")


class _WithoutEnvironment:
    """Undoes what the SDK takes from OPENAI_* variables, for which it has no switch.

    OPENAI_CUSTOM_HEADERS alone could replace the Authorization header, that is, the wallet that
    pays. The SDK's `with_options` builds its copies by this constructor too.
    """

    _api_key_provider: Any
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
        # Else each copy, that is, each call of an async client, would ask for it in a thread.
        self._platform = _platform()

    def _auth_headers(self, security: Any) -> dict[str, str]:
        return {}

    def _validate_headers(self, headers: Any, custom_headers: Any) -> None:
        """Nothing is missing: `_Bearer` adds it."""

    @property
    def payer(self) -> Any:
        """The user whose wallet pays; None where the developer does."""
        return getattr(self._api_key_provider, "user", None)

    def _ours(self, error: Exception) -> QuotaError:
        if not isinstance(error, APIError):
            return ProviderUnavailable("Quota's answer cannot be read; try again later.")
        return _developers_error(error) if self.payer is None else _users_error(error)

    def _may_have_cost(self, error: QuotaError) -> bool:
        """Has Quota perhaps billed a call of which we have no answer? Then the balance is old."""
        return self.payer is not None and type(error) is ProviderUnavailable


T = TypeVar("T")


class WalletStream(Stream[T]):
    """A stream that is read with our errors, however the SDK was asked for it."""

    def __init__(self, *, client: Any, **given: Any) -> None:
        super().__init__(client=client, **given)
        self._iterator = client._read(self._iterator)


class AsyncWalletStream(AsyncStream[T]):
    """`WalletStream` for async clients."""

    def __init__(self, *, client: Any, **given: Any) -> None:
        super().__init__(client=client, **given)
        self._iterator = client._read(self._iterator)


class WalletClient(_WithoutEnvironment, OpenAI):
    """An `openai.OpenAI` that knows nothing but its arguments."""

    def _prepare_options(self, options: Any) -> Any:
        # Asked for at each attempt, and here, where what it raises reaches the caller unchanged.
        key = self._api_key_provider
        _bearer.set(_Bearer(key() if key else self.api_key, key))
        options.follow_redirects = False  # what is asked is for Quota and for nobody else
        return options

    def _custom_auth(self, security: Any) -> httpx2.Auth:
        return _bearer.get()

    def request(self, *args: Any, stream_cls: Any = None, **kwargs: Any) -> Any:
        """As the SDK's, with errors of `django_quota.exceptions`."""
        if stream_cls is not None:
            stream_cls = WalletStream[extract_stream_chunk_type(stream_cls)]  # type: ignore[misc]
        with self._our_errors(_FAILED):
            return super().request(*args, stream_cls=stream_cls, **kwargs)

    def _process_response(self, *, cast_to: Any, **given: Any) -> Any:
        with self._our_errors(_GARBLED):
            return _checked(super()._process_response(cast_to=cast_to, **given), cast_to)

    def _read(self, chunks: Iterator[Any]) -> Iterator[Any]:
        with self._our_errors(_GARBLED):
            yield from chunks

    @contextmanager
    def _our_errors(self, theirs: tuple[type[Exception], ...]) -> Iterator[None]:
        try:
            yield
        except theirs as error:
            ours = self._ours(error)
            if self._may_have_cost(ours):
                forget_balance(self.payer)
            raise ours from _told_by(error)

    def close(self) -> None:
        """Nothing, also at the end of a `with`: the connection pool is everybody's."""


class AsyncWalletClient(_WithoutEnvironment, AsyncOpenAI):
    """An `openai.AsyncOpenAI` that knows nothing but its arguments."""

    async def _prepare_options(self, options: Any) -> Any:
        key = self._api_key_provider
        _bearer.set(_Bearer(await key() if key else self.api_key, key))
        options.follow_redirects = False
        return options

    @property
    def custom_auth(self) -> httpx2.Auth:
        return _bearer.get()

    async def request(self, *args: Any, stream_cls: Any = None, **kwargs: Any) -> Any:
        """As the SDK's, with errors of `django_quota.exceptions`."""
        if stream_cls is not None:
            stream_cls = AsyncWalletStream[extract_stream_chunk_type(stream_cls)]  # type: ignore[misc]
        try:
            async with self._our_errors(_FAILED):
                return await super().request(*args, stream_cls=stream_cls, **kwargs)
        except asyncio.CancelledError:  # its reader has gone away: it may have cost something
            if self.payer is not None:
                await sync_to_async(forget_balance)(self.payer)
            raise

    async def _process_response(self, *, cast_to: Any, **given: Any) -> Any:
        async with self._our_errors(_GARBLED):
            return _checked(await super()._process_response(cast_to=cast_to, **given), cast_to)

    async def _read(self, chunks: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async with self._our_errors(_GARBLED):
            async for chunk in chunks:
                yield chunk

    @asynccontextmanager
    async def _our_errors(self, theirs: tuple[type[Exception], ...]) -> AsyncIterator[None]:
        try:
            yield
        except theirs as error:
            ours = self._ours(error)
            if self._may_have_cost(ours):
                await sync_to_async(forget_balance)(self.payer)
            raise ours from _told_by(error)

    async def close(self) -> None:
        """Nothing, also at the end of a `with`: the connection pool is everybody's."""


#: What the SDK raises of a call, and lets through where an answer is cut.
_FAILED = (APIError, httpx2.HTTPError)
#: What it raises, too, while it reads what is none: not JSON, a number without end, too deep.
_GARBLED = (*_FAILED, ValueError, RecursionError)


def _checked(reply: Any, wanted: Any) -> Any:
    """`reply`, if it is what was to be: of a page that is no JSON the SDK gives the text, and of
    JSON that is no object whatever it is."""
    is_model = isinstance(wanted, type) and issubclass(wanted, BaseModel)
    if is_model and isinstance(reply, str | int | float | list | None):
        raise ValueError("no object")
    return reply


def _users_error(error: APIError) -> QuotaError:
    """What a refused call means where a user pays (quota-protocol section 9)."""
    status = _status(error)
    if status == 402:
        return InsufficientCredits("The wallet cannot cover this call; let the user buy credits.")
    if status == 403 and _code(error) == "insufficient_scope":
        return InsufficientScope(
            "The user's token may not spend; let them sign in again.", scope="credits.spend"
        )
    if status == 401:
        return ReauthenticationRequired(
            "Quota refuses even a token it has just renewed; let the user sign in again.",
            provider_code=_code(error),
        )
    return _anybodys_error(error)


def _developers_error(error: APIError) -> QuotaError:
    """The same where the developer pays: no user can do anything about it."""
    status = _status(error)
    if status in (401, 403):
        return ConfigurationError("Quota refuses this API key; check the developer's sk-quota-...")
    if status == 402:
        return ConfigurationError("The developer's own wallet cannot cover this call; top it up.")
    return _anybodys_error(error)


def _anybodys_error(error: APIError) -> QuotaError:
    status = _status(error)
    if status == 429:
        return RateLimited("The rate limit is reached; try again later.", retry_after=_wait(error))
    if status is not None and 400 <= status < 500:
        return RequestRefused(
            f"Quota refused the call (HTTP {status}).", status=status, provider_code=_code(error)
        )
    return ProviderUnavailable("The AI call got no answer; try again later.", status=status)


def _told_by(error: Exception) -> APIError | None:
    """What a 4xx says of the request helps the developer who made it. Else only the traceback of
    the SDK would be in the log, with what Quota says of a token that it refuses."""
    if not isinstance(error, APIError):
        return None
    status = _status(error) or 0
    return error if 400 <= status < 500 and status not in (401, 402, 403, 429) else None


def _status(error: APIError) -> int | None:
    """The HTTP status; of an error in the middle of a stream, the one that its code stands for."""
    status = error.status_code if isinstance(error, APIStatusError) else None
    return status or _STATUS_OF_CODE.get(_code(error))


def _code(error: APIError) -> str:
    return error.code if isinstance(error.code, str) and error.code.isidentifier() else ""


def _wait(error: APIError) -> int | None:
    """Seconds; None in the middle of a stream, too."""
    return retry_after(error.response.headers) if isinstance(error, APIStatusError) else None
