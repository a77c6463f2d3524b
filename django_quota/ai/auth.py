"""Gets the access token for each attempt of an AI call, sends it, and has the call recorded."""

from collections.abc import AsyncGenerator, Generator
from contextlib import suppress
from typing import Any

from asgiref.sync import sync_to_async

from django_quota.conf import get_settings
from django_quota.conf.origins import origin
from django_quota.exceptions import ConfigurationError, NotConnected
from django_quota.secret import Secret
from django_quota.tokens.access import aget_access_token, get_access_token
from django_quota.tokens.payer import current_request, require_payer
from django_quota.wallet.calls import Call, Caller

from .recording import AsyncRecordedBody, RecordedBody
from .sdk_http import httpx


class _Key:
    """The user who pays, and where their client was made."""

    def __init__(self, user: Any) -> None:
        if user is None or user.pk is None:
            raise NotConnected(
                "Nobody is signed in, so nobody can pay; let them sign in with Quota."
            )
        self.user = user
        self.caller = Caller()


class WalletKey(_Key):
    """The `api_key` of a user's client: a function that returns the user's access token.

    The SDK calls it at each attempt. Raises NotConnected if the user is None or not saved.
    """

    def begin(self, method: str) -> "BearerAuth":
        """Return the auth of a call by HTTP `method`, unless a spending limit is reached."""
        call = self.caller.begin(self.user, method)
        return BearerAuth(self(), self, call)

    def __call__(self, rejected: str | None = None) -> str:
        if self.caller.request not in (None, current_request()):
            require_payer(self.user, self.caller.request)
        return get_access_token(self.user, rejected=rejected)


class AsyncWalletKey(_Key):
    """`WalletKey` for async clients."""

    async def begin(self, method: str) -> "BearerAuth":
        """`WalletKey.begin`."""
        call = await self.caller.abegin(self.user, method)
        return BearerAuth(await self(), self, call)

    async def __call__(self, rejected: str | None = None) -> str:
        if self.caller.request not in (None, current_request()):
            await sync_to_async(require_payer)(self.user, self.caller.request)
        return await aget_access_token(self.user, rejected=rejected)


class BearerAuth(httpx.Auth):
    """Writes the token of one attempt into the request. After a 401 it renews the token and sends
    the request once more. A response that a user pays for is recorded at its end.

    The SDK would keep the token in `FinalRequestOptions.headers`, whose `repr` shows it to Django's
    error page, to the report mailed to admins and to every tool that collects the local variables
    of a traceback. And the SDK does not repeat a call after a 401.
    """

    def __init__(self, token: str, key: Any = None, call: Call | None = None) -> None:
        self._token = Secret(token)
        self._key = key
        self._call = call

    def sync_auth_flow(
        self, request: httpx.Request
    ) -> Generator[httpx.Request, httpx.Response, None]:
        response = yield _signed(request, self._token)
        if response.status_code == 401 and isinstance(self._key, WalletKey):
            response = yield _signed(request, self._key(rejected=self._token))
        if self._call is not None and response.is_success:
            response.stream = RecordedBody(self._call, response)

    async def async_auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        response = yield _signed(request, self._token)
        if response.status_code == 401 and isinstance(self._key, AsyncWalletKey):
            response = yield _signed(request, await self._key(rejected=self._token))
        if self._call is not None and response.is_success:
            response.stream = AsyncRecordedBody(self._call, response)


class WalletAuth(httpx.Auth):
    """Has `user` pay for the requests of an HTTP client: `httpx2.Client(auth=WalletAuth(user))`.

    For Quota's endpoints that the clients of this package do not have. Each request gets the user's
    current access token; after a 401 the token is renewed and the request sent once more; and the
    usage is recorded. Cookies, API keys and other credentials of the request are removed.

    It is for the HTTP library of the installed OpenAI SDK: httpx2, or httpx for release 2. Raises
    NotConnected if `user` is None or not saved. A request raises the errors of `get_access_token`,
    SpendingLimitReached, and ConfigurationError if it does not go to QUOTA_BASE_URL, where the
    token must not go.
    """

    def __init__(self, user: Any) -> None:
        self._key, self._async_key = WalletKey(user), AsyncWalletKey(user)

    def sync_auth_flow(
        self, request: httpx.Request
    ) -> Generator[httpx.Request, httpx.Response, None]:
        """Pay for one request of a sync client."""
        _require_quota(request)
        yield from self._key.begin(request.method).sync_auth_flow(request)

    async def async_auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Pay for one request of an async client."""
        _require_quota(request)
        flow = (await self._async_key.begin(request.method)).async_auth_flow(request)
        wanted = await anext(flow)
        with suppress(StopAsyncIteration):
            while True:
                wanted = await flow.asend((yield wanted))


def _require_quota(request: httpx.Request) -> None:
    url = request.url
    if url.userinfo or origin(str(url)) != origin(get_settings().base_url):
        raise ConfigurationError(
            "WalletAuth sends the user's token to QUOTA_BASE_URL only, and this request goes to "
            f"{url.host}. Use a client without it for other services."
        )


def _signed(request: httpx.Request, token: str) -> httpx.Request:
    request.headers["Authorization"] = f"Bearer {token}"
    # All users share the pool and its cookie jar: a cookie set for one must not reach another. An
    # API key may be the developer's, from the environment.
    for name in ("Cookie", "X-Api-Key"):
        request.headers.pop(name, None)
    return request
