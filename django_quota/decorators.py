"""`@quota_required`: for views that bill the user's wallet."""

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, TypeVar, overload

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.contrib.auth.decorators import login_not_required

from .exceptions import ConfigurationError

V = TypeVar("V", bound=Callable[..., Any])

__all__ = ["quota_required"]


@overload
def quota_required(view: V) -> V: ...
@overload
def quota_required(*, scopes: Iterable[str] = ()) -> Callable[[V], V]: ...


def quota_required(view: Any = None, *, scopes: Iterable[str] = ()) -> Any:
    """Restrict a view to users with a wallet whose token has `scopes` and can be used now.

    `QuotaMiddleware` checks that before the view, outside of its transaction (ATOMIC_REQUESTS), and
    redirects users without a wallet to sign in. For sync and async views, and for classes with
    `method_decorator(quota_required, name="dispatch")`. The view raises ConfigurationError if
    QuotaMiddleware did not check the request.
    """
    if view is None:
        return lambda view: _mark(view, frozenset(scopes))
    return _mark(view, frozenset(scopes))


def _mark(view: Callable[..., Any], scopes: frozenset[str]) -> Any:
    """Mark `view` for QuotaMiddleware, and make it raise an error if the check was not done."""

    @wraps(view)
    def wrapped(request: Any, *args: Any, **kwargs: Any) -> Any:
        _require_check(request, scopes)
        return view(request, *args, **kwargs)

    if iscoroutinefunction(view):
        markcoroutinefunction(wrapped)
    # Of several decorators on one view, all scopes count.
    scopes_of_all = scopes | getattr(view, "quota_scopes", frozenset())
    wrapped.quota_scopes = scopes_of_all  # type: ignore[attr-defined]
    # LoginRequiredMiddleware would redirect a fetch() to a page. QuotaMiddleware requires the
    # sign-in itself, and without it the view does not run.
    return login_not_required(wrapped)


def _require_check(request: Any, scopes: frozenset[str]) -> None:
    checked: frozenset[str] | None = getattr(request, "quota_checked", None)
    if checked is None or not scopes <= checked:
        raise ConfigurationError(
            "The check of @quota_required did not run. Put "
            "django_quota.middleware.QuotaMiddleware into MIDDLEWARE, after "
            "AuthenticationMiddleware; on a class, put the decorator on `dispatch`, once."
        )
