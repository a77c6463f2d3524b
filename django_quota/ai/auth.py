"""Gets the access token for each attempt of an AI call, sends it, and has the call recorded."""

from collections.abc import AsyncGenerator, Generator
from typing import Any

from asgiref.sync import sync_to_async

from django_quota.conf import get_settings
from django_quota.secret import Secret
from django_quota.tokens.access import aget_access_token, get_access_token
from django_quota.tokens.payer import current_request, require_payer
from django_quota.wallet.calls import Call, Caller

from .recording import AsyncRecordedBody, RecordedBody
from .sdk_http import httpx


class WalletKey:
    """The `api_key` of a user's client: a function that returns the user's access token.

    The SDK calls it at each attempt. It remembers where the client was made (`Caller`).
    """

    def __init__(self, user: Any) -> None:
        self.user = user
        self.caller = Caller()

    def __call__(self, rejected: str | None = None) -> str:
        if self.caller.request not in (None, current_request()):
            require_payer(self.user, self.caller.request)
        return get_access_token(self.user, rejected=rejected)


class AsyncWalletKey:
    """`WalletKey` for async clients."""

    def __init__(self, user: Any) -> None:
        self.user = user
        self.caller = Caller()

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

    def __init__(self, token: str, key: Any) -> None:
        self._token = Secret(token)
        self._key = key

    def sync_auth_flow(
        self, request: httpx.Request
    ) -> Generator[httpx.Request, httpx.Response, None]:
        call = self._describe(on_loop=False)
        response = yield self._signed(request, self._token)
        if response.status_code == 401 and isinstance(self._key, WalletKey):
            response = yield self._signed(request, self._key(rejected=self._token))
        if call is not None and response.is_success:
            response.stream = RecordedBody(call, response)

    async def async_auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        call = self._describe(on_loop=True)
        response = yield self._signed(request, self._token)
        if response.status_code == 401 and isinstance(self._key, AsyncWalletKey):
            response = yield self._signed(request, await self._key(rejected=self._token))
        if call is not None and response.is_success:
            response.stream = AsyncRecordedBody(call, response)

    def _describe(self, *, on_loop: bool) -> Call | None:
        """Describe the call that is sent now; None if it is not to be recorded."""
        if not isinstance(self._key, WalletKey | AsyncWalletKey) or not get_settings().record_usage:
            return None
        return self._key.caller.call(self._key.user, on_loop=on_loop)

    def _signed(self, request: httpx.Request, token: str) -> httpx.Request:
        request.headers["Authorization"] = f"Bearer {token}"
        # All users share the pool and its cookie jar: a cookie set for one must not reach another.
        request.headers.pop("Cookie", None)
        return request
