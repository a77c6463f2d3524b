"""OpenAI clients that are billed to a user's wallet.

The owner of the bearer token pays for a call. So each attempt gets the user's current token, and
the clients ignore all OPENAI_* variables: OPENAI_API_KEY would bill the developer.
"""

import asyncio
import atexit
import logging
import os
from contextlib import suppress
from functools import cache, lru_cache
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from django.conf import settings

from django_quota.conf import get_settings
from django_quota.exceptions import ConfigurationError, NotConnected, RequestRefused
from django_quota.oidc.network import Way, way_to
from django_quota.secret import Secret

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

logger = logging.getLogger("django_quota.openai_clients")

#: The system check for the same, and what silences both.
SILENCER = "django_quota.W015"


def openai_client(user: Any) -> "OpenAI":
    """Return an `openai.OpenAI` whose calls are all paid by `user`.

    Make one for each request: that costs microseconds, as all clients share one connection pool.
    After a 401 the token is renewed and the call sent once more. Nothing else is retried, because a
    chat call that is sent twice may be billed twice; `with_options(max_retries=...)` changes that.
    Set `timeout` (seconds; the SDK's default is 600) there or at each call.

    Raises NotConnected if `user` is None or not saved, and ConfigurationError if the OpenAI SDK is
    not installed (the extra `ai`), its release is not supported, or the environment names a proxy
    or certificates that cannot be used. A call, and reading a stream, raise only errors of
    `django_quota.exceptions`: those of `get_access_token`, InsufficientCredits, InsufficientScope,
    RateLimited, RequestRefused and ProviderUnavailable. The recipe, step 06; quota-protocol section
    14.
    """
    clients = sdk_module("clients")
    _warn_of_developer_key()
    return _client().with_options(api_key=clients.WalletClient.key_class(user))


def async_openai_client(user: Any) -> "AsyncOpenAI":
    """`openai_client` for async code: an `openai.AsyncOpenAI`, with one pool for each event loop.

    Raises ConfigurationError, too, if no event loop is running.
    """
    client = loopless_client(user)
    require_running_loop()
    return client


def loopless_client(user: Any) -> "AsyncOpenAI":
    """`async_openai_client` where no event loop is running yet: for `django_quota.contrib`, as some
    frameworks take both clients, and make one from the environment if they are given only one.
    """
    clients = sdk_module("clients")
    _warn_of_developer_key()
    return _async_client().with_options(api_key=clients.AsyncWalletClient.key_class(user))


def developer_client(api_key: str) -> "OpenAI":
    """Return an `openai.OpenAI` whose calls are paid by you, the developer: `api_key` is your own
    `sk-quota-...` (quota-protocol section 1).

    For calls that no user should pay for. Nothing in this package falls back to it. Raises
    ConfigurationError if Quota refuses the key or your wallet is empty, and the other errors of
    `openai_client`.
    """
    return _client().with_options(api_key=_require_developer_key(api_key))


def async_developer_client(api_key: str) -> "AsyncOpenAI":
    """`developer_client` for async code, with one pool for each event loop."""
    require_running_loop()
    return _async_client().with_options(api_key=_require_developer_key(api_key))


def require_running_loop() -> None:
    """Raise ConfigurationError in synchronous code.

    A client would work there, but in the loop of a framework's `run_sync` or of `asyncio.run` it
    would use the database in a thread whose connections stay open after the request. In the loop of
    `async_to_sync` it uses the thread of the view.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            "An async client needs a running event loop; in synchronous code, use openai_client or "
            "developer_client. For a framework that has only async clients, put the call into an "
            "async function, make the client there, and run it by asgiref.sync.async_to_sync."
        ) from None


@cache
def _warn_of_developer_key() -> None:
    """Log a warning, once for each process, if a framework could bill the developer by mistake."""
    if not os.environ.get("OPENAI_API_KEY") or SILENCER in settings.SILENCED_SYSTEM_CHECKS:
        return
    logger.warning(
        "OPENAI_API_KEY is in the environment: a framework that makes an OpenAI client of its own "
        "bills you and not the user. Remove the variable; or, if you pay for other calls with it, "
        "add %r to SILENCED_SYSTEM_CHECKS.",
        SILENCER,
    )


def _require_developer_key(api_key: str) -> str:
    # With a user's token, that user would pay although the code says that the developer does.
    if not isinstance(api_key, str) or not api_key.startswith("sk-quota-"):
        raise ConfigurationError(
            "A developer's API key begins with sk-quota-. To bill a user's wallet, use "
            "openai_client(user)."
        )
    return Secret(api_key)


def sdk_module(name: str) -> ModuleType:
    """Import a module of this folder that uses the SDK, at the first call, not in django.setup().

    Importing the SDK takes 370 ms and 27 MB, and a site that only signs people in need not have it.
    """
    try:
        return import_module(f"{__package__}.{name}")
    except ModuleNotFoundError as error:
        if error.name not in ("openai", "httpx", "httpx2"):
            raise
        raise ConfigurationError(
            "AI calls need the OpenAI SDK, which is not installed; "
            'install this package with its extra: pip install "django-quota[ai]".'
        ) from None


def _client() -> "OpenAI":
    base_url = get_settings().base_url
    return _shared_client(base_url, way_to(base_url), os.getpid())


def _async_client() -> "AsyncOpenAI":
    base_url = get_settings().base_url
    return _shared_async_client(base_url, way_to(base_url))


@lru_cache(maxsize=4)
def _shared_client(base_url: str, way: Way, process: int) -> "OpenAI":
    """One client, and so one connection pool, for each process: forks must not share sockets."""
    clients = sdk_module("clients")
    from openai import DefaultHttpxClient

    pool = DefaultHttpxClient(base_url=f"{base_url}/v1", **_pool_options(way))
    client: OpenAI = clients.WalletClient(
        api_key=_refuse_to_call, base_url=f"{base_url}/v1", max_retries=0, http_client=pool
    )
    # At exit, before Python unloads the modules. The function registered last runs first: the pool
    # is closed, then the client forgotten.
    atexit.register(_shared_client.cache_clear)
    atexit.register(pool.close)
    return client


def _pool_options(way: Way) -> dict[str, Any]:
    """Options of a pool that uses the proxy and certificates of `way`, not the environment's."""
    return {"trust_env": False, "proxy": way.proxy, "verify": way.tls()}


@lru_cache(maxsize=4)
def _shared_async_client(base_url: str, way: Way) -> "AsyncOpenAI":
    """One client for all event loops, with one connection pool for each (`LoopTransport`)."""
    clients = sdk_module("clients")
    from openai import DEFAULT_CONNECTION_LIMITS, DefaultAsyncHttpxClient

    from .pools import LoopTransport

    transport = LoopTransport(limits=DEFAULT_CONNECTION_LIMITS, **_pool_options(way))
    pool = DefaultAsyncHttpxClient(base_url=f"{base_url}/v1", transport=transport, trust_env=False)
    client: AsyncOpenAI = clients.AsyncWalletClient(
        api_key=_arefuse_to_call, base_url=f"{base_url}/v1", max_retries=0, http_client=pool
    )
    return client


def find_models() -> None:
    """Ask Quota for its models without a user, to see whether AI calls reach it, at no cost.

    Raises ConfigurationError and ProviderUnavailable like the calls of a client.
    """
    client = _client().with_options(api_key="quota_check", timeout=get_settings().deadline)
    # A refusal shows that Quota was reached.
    with suppress(ConfigurationError, RequestRefused):
        client.models.list()


def _refuse_to_call() -> str:
    raise NotConnected("This client has no user to bill.")


async def _arefuse_to_call() -> str:
    return _refuse_to_call()
