"""The tokens of a user: stored, renewed, handed out and revoked."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .access import aget_access_token, get_access_token

__all__ = ["aget_access_token", "get_access_token"]


def __getattr__(name: str) -> Any:
    """Import `access` at its first use: the hooks for the end of a process, which every process
    needs, are in this package, too, and do without the HTTP library that `access` imports."""
    if name in __all__:
        from . import access

        return getattr(access, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
