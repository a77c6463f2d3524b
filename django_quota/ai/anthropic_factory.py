"""Anthropic clients that are billed to a user's wallet."""

from types import ModuleType
from typing import TYPE_CHECKING, Any

from django_quota.conf import get_settings
from django_quota.exceptions import ConfigurationError

from .factory import _async_client, _client, require_running_loop

if TYPE_CHECKING:
    from anthropic import Anthropic, AsyncAnthropic


def anthropic_client(user: Any) -> "Anthropic":
    """Return an `anthropic.Anthropic` whose calls of `/v1/messages` are all paid by `user`.

    It is like `openai_client`: make one for each request, nothing is retried but a 401, the usage
    is recorded, and no variable of the environment is used. `max_tokens` limits what Quota
    reserves.

    Raises NotConnected if `user` is None or not saved, and ConfigurationError if the SDK (the extra
    `anthropic`) is not installed. A call, and reading a stream, raise the errors of
    `openai_client`. Quota-protocol section 14.
    """
    client: Anthropic = _make("WalletAnthropic", _client(), user)
    return client


def async_anthropic_client(user: Any) -> "AsyncAnthropic":
    """`anthropic_client` for async code: an `anthropic.AsyncAnthropic`.

    Raises ConfigurationError, too, if no event loop is running.
    """
    require_running_loop()
    client: AsyncAnthropic = _make("AsyncWalletAnthropic", _async_client(), user)
    return client


def _make(name: str, openai: Any, user: Any) -> Any:
    """Return a client of the class `name`, which shares the connection pool of `openai`."""
    clients = _clients_module()
    return getattr(clients, name)(
        wallet_auth=clients.WalletAuth(user),
        base_url=get_settings().base_url,
        http_client=openai._client,
        max_retries=0,
    )


def _clients_module() -> ModuleType:
    """Import the module `anthropic_clients` at the first call, as it imports the SDK."""
    try:
        from . import anthropic_clients
    except ModuleNotFoundError as error:
        if error.name != "anthropic":
            raise
        raise ConfigurationError(
            "The Anthropic SDK is not installed; install this package with its extras: "
            'pip install "django-quota[ai,anthropic]".'
        ) from None
    return anthropic_clients
