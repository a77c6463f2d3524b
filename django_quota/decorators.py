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
    QuotaMiddleware did not run.
    """
    if view is None:
        return lambda view: _marked(view, frozenset(scopes))
    return _marked(view, frozenset(scopes))


def _marked(view: Callable[..., Any], scopes: frozenset[str]) -> Any:
    """`view`, marked for QuotaMiddleware, and refusing to run where that has not seen the mark."""
    wrapped: Any
    if iscoroutinefunction(view):

        @wraps(view)
        async def wrapped(request: Any, *args: Any, **kwargs: Any) -> Any:
            _require_check(request, scopes)
            return await view(request, *args, **kwargs)

    else:

        @wraps(view)
        def wrapped(request: Any, *args: Any, **kwargs: Any) -> Any:
            _require_check(request, scopes)
            return view(request, *args, **kwargs)

    # Of decorators on top of each other, all that is asked for.
    wrapped.quota_scopes = scopes | getattr(view, "quota_scopes", frozenset())
    return wrapped


def _require_check(request: Any, scopes: frozenset[str]) -> None:
    checked: frozenset[str] | None = getattr(request, "quota_checked", None)
    if checked is None or not scopes <= checked:
        raise ConfigurationError(
            "Nobody has looked at what @quota_required asks for. It needs "
            "django_quota.middleware.QuotaMiddleware in MIDDLEWARE, after "
            "AuthenticationMiddleware, and on a class it belongs on `dispatch`, once."
        )
