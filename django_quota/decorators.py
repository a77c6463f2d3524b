"""`@quota_required`: a view for users whose wallet can be billed."""

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, TypeVar, overload

from asgiref.sync import iscoroutinefunction

from .exceptions import ConfigurationError

V = TypeVar("V", bound=Callable[..., Any])

__all__ = ["quota_required"]


@overload
def quota_required(view: V) -> V: ...
@overload
def quota_required(*, scopes: Iterable[str] = ()) -> Callable[[V], V]: ...


def quota_required(view: Any = None, *, scopes: Iterable[str] = ()) -> Any:
    """Only for users with a wallet whose token has `scopes` and is good for the next call.

    `QuotaMiddleware` sees to that before the view, outside of its transaction (ATOMIC_REQUESTS);
    whoever is not connected is sent to sign in. For sync and async views, and for classes by
    `method_decorator(quota_required, name="dispatch")`. Raises ConfigurationError at the request if
    the middleware is missing.
    """
    if view is None:
        return lambda view: _marked(view, frozenset(scopes))
    return _marked(view, frozenset(scopes))


def _marked(view: Callable[..., Any], scopes: frozenset[str]) -> Any:
    """`view`, marked, and refusing to run where nobody has looked at the mark."""
    wrapped: Any
    if iscoroutinefunction(view):

        @wraps(view)
        async def wrapped(request: Any, *args: Any, **kwargs: Any) -> Any:
            _require_middleware(request)
            return await view(request, *args, **kwargs)

    else:

        @wraps(view)
        def wrapped(request: Any, *args: Any, **kwargs: Any) -> Any:
            _require_middleware(request)
            return view(request, *args, **kwargs)

    wrapped.quota_scopes = scopes
    return wrapped


def _require_middleware(request: Any) -> None:
    if not getattr(request, "quota_checked", False):
        raise ConfigurationError(
            "@quota_required needs django_quota.middleware.QuotaMiddleware in MIDDLEWARE, after "
            "AuthenticationMiddleware."
        )
