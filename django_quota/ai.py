"""OpenAI clients that are billed to a user's wallet.

Whatever bearer token a call carries is who pays. So the key of these clients is a function that
is asked again for every attempt, and nothing of the environment is ever used: not
OPENAI_API_KEY, which would bill the developer, nor any other OPENAI_* variable.
"""

import asyncio
import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .conf import get_settings
from .exceptions import (
    InsufficientCredits,
    InsufficientScope,
    NotConnected,
    ProviderUnavailable,
    QuotaError,
    RateLimited,
    ReauthenticationRequired,
    RequestRefused,
)
from .tokens import aget_access_token, get_access_token

if TYPE_CHECKING:
    from openai import APIError, AsyncOpenAI, OpenAI

__all__ = ["async_openai_client", "openai_client", "translate_error"]


def openai_client(user: Any) -> "OpenAI":
    """An `openai.OpenAI` whose every call is paid by `user`.

    All users share one connection pool; making a client costs microseconds, so make one for each
    request. `max_retries` is 0, because a chat call that is sent twice may be billed twice; set
    it by `with_options(max_retries=...)` knowingly.

    A call raises what `get_access_token` raises, and openai.APIError; `translate_error` turns the
    latter into an error of this package. The recipe, step 06.
    """
    _require_connectable(user)
    return _shared_client(get_settings().base_url, os.getpid()).with_options(
        api_key=lambda: get_access_token(user)
    )


def async_openai_client(user: Any) -> "AsyncOpenAI":
    """`openai_client` for async code: an `openai.AsyncOpenAI`, one pool for each event loop."""
    _require_connectable(user)

    async def key() -> str:
        return await aget_access_token(user)

    loop = asyncio.get_running_loop()
    return _shared_async_client(get_settings().base_url, loop).with_options(api_key=key)


def _require_connectable(user: Any) -> None:
    if user is None or user.pk is None:
        raise NotConnected("Nobody is signed in, so nobody can pay; let them sign in with Quota.")


# openai costs 370 ms and 27 MB to import, so it is imported by the first call, not by
# django.setup().


@lru_cache(maxsize=4)
def _shared_client(base_url: str, process: int) -> "OpenAI":
    """One client, that is one connection pool, a process: a fork must not share its sockets."""
    from .openai_clients import WalletClient

    return WalletClient(api_key=_nobody, base_url=f"{base_url}/v1", max_retries=0)


@lru_cache(maxsize=16)
def _shared_async_client(base_url: str, loop: object) -> "AsyncOpenAI":
    """One client for each event loop: its sockets belong to the loop they were opened in."""
    from .openai_clients import AsyncWalletClient

    async def nobody() -> str:
        return _nobody()

    return AsyncWalletClient(api_key=nobody, base_url=f"{base_url}/v1", max_retries=0)


def _nobody() -> str:
    raise NotConnected("This client has no user to bill.")


def translate_error(error: "APIError") -> QuotaError:
    """The error of this package that says what to do about an `openai.APIError`.

    InsufficientCredits (402), InsufficientScope (403), ReauthenticationRequired (401),
    RateLimited (429), RequestRefused (other 4xx), ProviderUnavailable (all else);
    quota-protocol section 9.
    """
    status = getattr(error, "status_code", None)
    code = error.code if isinstance(error.code, str) and error.code.isidentifier() else ""
    if status == 402:
        return InsufficientCredits("The wallet cannot cover this call; let the user buy credits.")
    if status == 403:
        return InsufficientScope(
            "The user's token may not spend; let them sign in again.", scope="credits.spend"
        )
    if status == 401:
        return ReauthenticationRequired(
            "Quota refuses the user's token; let them sign in again.", provider_code=code
        )
    if status == 429:
        return RateLimited("The rate limit is reached; try again later.")
    if status is not None and 400 <= status < 500:
        return RequestRefused(
            f"Quota refused the call (HTTP {status}).", status=status, provider_code=code
        )
    return ProviderUnavailable("The AI call got no answer; try again later.", status=status)
