"""AI clients, paid by the wallet of a user or by the developer."""

from typing import TYPE_CHECKING, Any

from .anthropic_factory import anthropic_client, async_anthropic_client
from .factory import (
    async_developer_client,
    async_openai_client,
    developer_client,
    openai_client,
    sdk_module,
)

if TYPE_CHECKING:
    from .auth import WalletAuth

__all__ = [
    "WalletAuth",
    "anthropic_client",
    "async_anthropic_client",
    "async_developer_client",
    "async_openai_client",
    "developer_client",
    "openai_client",
]


def __getattr__(name: str) -> Any:
    """Import `WalletAuth` when it is used: it is a class of the SDK's HTTP library."""
    if name != "WalletAuth":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return sdk_module("auth").WalletAuth
