"""The OpenAI SDK's clients: billed to one wallet, cut off from the environment, with our errors.
Imported lazily: see `ai`."""

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import httpx2
from django.views.decorators.debug import sensitive_variables
from openai import APIError, APIStatusError, AsyncOpenAI, AsyncStream, OpenAI, Stream

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

__all__ = ["AsyncWalletClient", "AsyncWalletKey", "WalletClient", "WalletKey"]


class WalletKey:
    """The key of a client: the user's access token, asked for at each attempt."""

    def __init__(self, user: Any) -> None:
        self._user = user

    def __call__(self, rejected: str | None = None) -> str:
        return get_access_token(self._user, rejected=rejected)


class AsyncWalletKey:
    """`WalletKey` for async clients."""

    def __init__(self, user: Any) -> None:
        self._user = user

    async def __call__(self, rejected: str | None = None) -> str:
        return await aget_access_token(self._user, rejected=rejected)


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
        return request


#: Codes that may come up while an answer is on its way (quota-protocol section 9).
_STATUS_OF_CODE = {
    "insufficient_credits": 402,
    "insufficient_balance": 402,
    "rate_limit": 429,
    "rate_limit_exceeded": 429,
}

#: Of the attempt that this thread or task is making.
_bearer: ContextVar[_Bearer] = ContextVar("django_quota_bearer")


class _WithoutEnvironment:
    """Undoes what the SDK takes from OPENAI_* variables, for which it has no switch.

    OPENAI_CUSTOM_HEADERS alone could replace the Authorization header, that is, the wallet that
    pays. The SDK's `with_options` builds its copies by this constructor too.
    """

    _api_key_provider: Any

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

    def _ours(self, error: APIError) -> QuotaError:
        by_user = isinstance(self._api_key_provider, WalletKey | AsyncWalletKey)
        return _users_error(error) if by_user else _developers_error(error)


class WalletClient(_WithoutEnvironment, OpenAI):
    """An `openai.OpenAI` that knows nothing but its arguments."""

    @sensitive_variables()
    def _prepare_options(self, options: Any) -> Any:
        # Asked for at each attempt, and here, where what it raises reaches the caller unchanged.
        key = self._api_key_provider
        _bearer.set(_Bearer(key() if key else self.api_key, key))
        options.follow_redirects = False  # what is asked is for Quota and for nobody else
        return options

    def _custom_auth(self, security: Any) -> httpx2.Auth:
        return _bearer.get()

    def request(self, *args: Any, **kwargs: Any) -> Any:
        """As the SDK's, with errors of `django_quota.exceptions`."""
        try:
            reply = super().request(*args, **kwargs)
        except APIError as error:
            raise self._ours(error) from _told_by(error)
        if isinstance(reply, Stream):
            reply._iterator = self._read(reply._iterator)
        return reply

    def _read(self, chunks: Iterator[Any]) -> Iterator[Any]:
        try:
            yield from chunks
        except APIError as error:
            raise self._ours(error) from _told_by(error)

    def close(self) -> None:
        """Nothing, also at the end of a `with`: the connection pool is everybody's."""


class AsyncWalletClient(_WithoutEnvironment, AsyncOpenAI):
    """An `openai.AsyncOpenAI` that knows nothing but its arguments."""

    @sensitive_variables()
    async def _prepare_options(self, options: Any) -> Any:
        key = self._api_key_provider
        _bearer.set(_Bearer(await key() if key else self.api_key, key))
        options.follow_redirects = False
        return options

    @property
    def custom_auth(self) -> httpx2.Auth:
        return _bearer.get()

    async def request(self, *args: Any, **kwargs: Any) -> Any:
        """As the SDK's, with errors of `django_quota.exceptions`."""
        try:
            reply = await super().request(*args, **kwargs)
        except APIError as error:
            raise self._ours(error) from _told_by(error)
        if isinstance(reply, AsyncStream):
            reply._iterator = self._read(reply._iterator)
        return reply

    async def _read(self, chunks: AsyncIterator[Any]) -> AsyncIterator[Any]:
        try:
            async for chunk in chunks:
                yield chunk
        except APIError as error:
            raise self._ours(error) from _told_by(error)

    async def close(self) -> None:
        """Nothing, also at the end of a `with`: the connection pool is everybody's."""


def _users_error(error: APIError) -> QuotaError:
    """What a refused call means where a user pays (quota-protocol section 9)."""
    status = _status(error)
    if status == 402:
        return InsufficientCredits("The wallet cannot cover this call; let the user buy credits.")
    if status == 403:
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


def _told_by(error: APIError) -> APIError | None:
    """What a 4xx says of the request helps the developer who made it. Else only the traceback of
    the SDK would be in the log, with what Quota says of a token that it refuses."""
    status = _status(error) or 0
    return error if 400 <= status < 500 and status not in (401, 402, 403, 429) else None


def _status(error: APIError) -> int | None:
    """The HTTP status; of an error in the middle of a stream, the one that its code stands for."""
    status = error.status_code if isinstance(error, APIStatusError) else None
    return status or _STATUS_OF_CODE.get(_code(error))


def _code(error: APIError) -> str:
    return error.code if isinstance(error.code, str) and error.code.isidentifier() else ""


def _wait(error: APIError) -> int | None:
    """Seconds of `Retry-After` (RFC 9110 section 10.2.3)."""
    if not isinstance(error, APIStatusError):
        return None
    value = error.response.headers.get("Retry-After", "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else None
