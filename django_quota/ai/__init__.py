"""AI clients, paid by the wallet of a user or by the developer."""

from .factory import (
    async_developer_client,
    async_openai_client,
    developer_client,
    openai_client,
)

__all__ = [
    "async_developer_client",
    "async_openai_client",
    "developer_client",
    "openai_client",
]
