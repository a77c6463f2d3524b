"""OpenAI clients that are billed to a user's wallet.

A call is paid by the owner of the bearer token that it carries. So the key of these clients is
asked for again at every attempt, and nothing of the environment is ever used: not OPENAI_API_KEY,
which would bill the developer, nor any other OPENAI_* variable.
"""

import asyncio
import atexit
import os
from collections.abc import AsyncGenerator
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .conf import get_settings
from .exceptions import ConfigurationError, NotConnected

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

__all__ = [
    "async_developer_client",
    "async_openai_client",
    "developer_client",
    "openai_client",
]


def openai_client(user: Any) -> "OpenAI":
    """An `openai.OpenAI` whose every call is paid by `user`.

    All users share one connection pool; making a client costs microseconds, so make one for each
    request. A 401 renews the token that failed, once, and sends the call again. `max_retries` is 0
    otherwise, because a chat call that is sent twice may be billed twice; set it by
    `with_options(max_retries=...)` knowingly, and `timeout` (seconds; the SDK's own is 600) there
    or at each call.

    Raises NotConnected at once for nobody. A call, and the reading of a stream, raise what
    `get_access_token` raises, and InsufficientCredits, InsufficientScope, RateLimited,
    RequestRefused, ProviderUnavailable: errors of `django_quota.exceptions` only. The recipe,
    step 06; quota-protocol section 14.
    """
    from .openai_clients import WalletKey

    _require_connectable(user)
    client = _shared_client(get_settings().base_url, os.getpid())
    return client.with_options(api_key=WalletKey(user))


def async_openai_client(user: Any) -> "AsyncOpenAI":
    """`openai_client` for async code: an `openai.AsyncOpenAI`, one pool for each event loop.

    Raises ConfigurationError, too, where no event loop is running.
    """
    from .openai_clients import AsyncWalletKey

    _require_connectable(user)
    client = _shared_async_client(get_settings().base_url, _running_loop())
    return client.with_options(api_key=AsyncWalletKey(user))


def developer_client(api_key: str) -> "OpenAI":
    """An `openai.OpenAI` whose calls are paid by you, the developer: `api_key` is your own
    `sk-quota-...` (quota-protocol section 1).

    For what no user should pay. Nothing in this package falls back to it. Raises ConfigurationError
    where Quota refuses the key or your wallet is empty, else what `openai_client` raises.
    """
    client = _shared_client(get_settings().base_url, os.getpid())
    return client.with_options(api_key=_developers(api_key))


def async_developer_client(api_key: str) -> "AsyncOpenAI":
    """`developer_client` for async code, as `async_openai_client` is of `openai_client`."""
    client = _shared_async_client(get_settings().base_url, _running_loop())
    return client.with_options(api_key=_developers(api_key))


def _running_loop() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            "An async client needs a running event loop; in synchronous code, use openai_client or "
            "developer_client."
        ) from None


def _require_connectable(user: Any) -> None:
    if user is None or user.pk is None:
        raise NotConnected("Nobody is signed in, so nobody can pay; let them sign in with Quota.")


def _developers(api_key: str) -> str:
    # A user's token here would charge that user where the code says that the developer pays.
    if not isinstance(api_key, str) or not api_key.startswith("sk-quota-"):
        raise ConfigurationError(
            "A developer's API key begins with sk-quota-; for a user's wallet there is "
            "openai_client(user)."
        )
    return api_key


_async_clients: dict[
    tuple[str, asyncio.AbstractEventLoop], tuple["AsyncOpenAI", AsyncGenerator[None]]
] = {}

# openai costs 370 ms and 27 MB to import, so it is imported by the first call, not by
# django.setup().


@lru_cache(maxsize=4)
def _shared_client(base_url: str, process: int) -> "OpenAI":
    """One client, that is one connection pool, a process: a fork must not share its sockets."""
    from .openai_clients import WalletClient

    client = WalletClient(api_key=_nobody, base_url=f"{base_url}/v1", max_retries=0)
    # Before its modules are gone: closed, then forgotten, as what is registered last runs first.
    atexit.register(_shared_client.cache_clear)
    atexit.register(client._client.close)
    return client


def _shared_async_client(base_url: str, loop: asyncio.AbstractEventLoop) -> "AsyncOpenAI":
    """One client for each event loop: its sockets belong to the loop they were opened in, and end
    with it. An async view under WSGI has a loop for each request, and so has `async_to_sync`."""
    if (base_url, loop) not in _async_clients:
        for of_another, other in list(_async_clients):
            if other.is_closed():  # by somebody who does not let its generators end first
                del _async_clients[of_another, other]
        _async_clients[base_url, loop] = _opened(base_url, loop)
    return _async_clients[base_url, loop][0]


def _opened(
    base_url: str, loop: asyncio.AbstractEventLoop
) -> tuple["AsyncOpenAI", AsyncGenerator[None]]:
    """A client, and what closes it: a loop that ends, ends its generators first."""
    from openai import DefaultAsyncHttpxClient

    from .openai_clients import AsyncWalletClient

    async def nobody() -> str:
        return _nobody()

    pool = DefaultAsyncHttpxClient(base_url=f"{base_url}/v1")

    async def until_the_loop_ends() -> AsyncGenerator[None]:
        try:
            yield
        finally:
            _async_clients.pop((base_url, loop), None)
            await pool.aclose()

    end = until_the_loop_ends()
    with suppress(StopIteration):  # as it comes to its `yield`, and waits there
        end.__anext__().send(None)
    client = AsyncWalletClient(
        api_key=nobody, base_url=f"{base_url}/v1", max_retries=0, http_client=pool
    )
    return client, end


def _nobody() -> str:
    raise NotConnected("This client has no user to bill.")
