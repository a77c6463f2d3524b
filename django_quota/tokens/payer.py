"""Decide who pays for the AI calls of a request: its user, unless another person acts as them.

`QuotaMiddleware` stores the request in a context variable. So code that has only a user, such as
`get_access_token`, can refuse a call of a request with impersonation.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth import middleware as django_auth
from django.core.exceptions import SynchronousOnlyOperation
from django.http import HttpRequest
from django.utils.functional import LazyObject

from django_quota.conf import get_settings
from django_quota.exceptions import ConfigurationError, ImpersonationRefused

from .impersonation import project_function, who_acts

__all__ = ["aget_payer", "get_payer"]

#: The attribute of a request that stores its payer.
_KNOWN = "_django_quota_payer"

_request: ContextVar[HttpRequest | None] = ContextVar("django_quota_request", default=None)


def get_payer(request: HttpRequest) -> Any:
    """Return the user whose wallet pays in `request`; AnonymousUser if nobody is signed in.

    It is `request.user`, in `def` and `async def` views. If a middleware of the project sets
    `request.auser` only, it is the result of that.

    Raises ImpersonationRefused while another person acts as that user, unless
    QUOTA_ALLOW_IMPERSONATED_BILLING is True.
    """
    user = user_of(request)
    require_payer(user, request)
    setattr(request, _KNOWN, user)
    return user


async def aget_payer(request: HttpRequest) -> Any:
    """`get_payer` for async code.

    After `@quota_required` it mostly knows the payer, and enters no thread.
    """
    # `vars`, as a request of Django REST framework finds its user by the database.
    known = vars(request).get(_KNOWN)
    is_users = known is not None and known is vars(request).get("user")
    if is_users and not _has_own_auser(request) and nobody_acts(request):
        return known
    return await sync_to_async(get_payer)(request)


def nobody_acts(request: HttpRequest) -> bool:
    """Return True if nobody acts as the user of `request`; also False if the database is needed to
    see that. For the event loop, after `get_payer` has read the session."""
    try:
        # The project's function may use the database.
        return project_function() is None and who_acts(request) is None
    except SynchronousOnlyOperation:
        return False


def user_of(request: HttpRequest) -> Any:
    """Return the user of `request`, even during impersonation. Not for the event loop."""
    user: Any = request.user
    if isinstance(user, LazyObject) and _has_own_auser(request):
        return async_to_sync(request.auser)()
    try:
        bool(user)  # load the user here: the caller may pass it to an event loop, which cannot
    except SynchronousOnlyOperation:
        raise _on_the_loop() from None
    return user


def _has_own_auser(request: HttpRequest) -> bool:
    """Return True if the project has set an `auser`, other than AuthenticationMiddleware's.

    Django's adds nothing to `request.user`. It also misses a user that another package has put
    there, and fails for a backend without `aget_user`.
    """
    auser = getattr(request, "auser", None)
    is_djangos = isinstance(auser, partial) and auser.func is django_auth.auser
    return auser is not None and not is_djangos


def require_payer(user: Any, request: HttpRequest | None = None) -> None:
    """Raise ImpersonationRefused if another person acts in `request`, so that `user` must not pay.

    `request` is by default the one that this thread or task works for. Commands and background jobs
    have none, and no impersonation.
    """
    request = request or _request.get()
    if request is None or _who_acts(request) is None:
        return
    if not get_settings().allow_impersonated_billing:
        raise _refusal("QUOTA_ALLOW_IMPERSONATED_BILLING = True allows it.")
    if user is None or user.pk != user_of(request).pk:
        raise _refusal("Even then, only the user of the request pays: see get_payer(request).")


def _who_acts(request: HttpRequest) -> str | None:
    try:
        return who_acts(request)
    except SynchronousOnlyOperation:
        raise _on_the_loop() from None


def _on_the_loop() -> ConfigurationError:
    return ConfigurationError(
        "Finding the payer uses the session and the database; in async code, await aget_payer or "
        "aget_access_token, or use async_openai_client. A synchronous view runs such code by "
        "asgiref.sync.async_to_sync."
    )


def refuse_if_acting(request: HttpRequest) -> None:
    """Raise ImpersonationRefused if another person acts as the user, whatever the settings are."""
    if who_acts(request) is not None:
        raise _refusal("Only the user can connect their wallet.")


def _refusal(advice: str) -> ImpersonationRefused:
    return ImpersonationRefused(
        f"Somebody acts as this user, so no wallet is billed or changed. {advice}"
    )


def acted_by() -> str:
    """Return the name of the person who acts in the current request; "" if nobody does."""
    request = _request.get()
    return "" if request is None else who_acts(request) or ""


def current_request() -> HttpRequest | None:
    """Return the request that this thread or task works for; None if there is none."""
    return _request.get()


def begin(request: HttpRequest) -> Callable[[], None]:
    """Make `request` the current one of this thread or task. Returns a function that ends it."""
    before = _request.get()
    _request.set(request)
    return partial(_end, request, before)


def _end(request: HttpRequest, before: HttpRequest | None) -> None:
    if _request.get() is request:  # else it is called in another context, or too late
        _request.set(before)


@contextmanager
def during(request: HttpRequest) -> Iterator[None]:
    """`begin` for a block."""
    end = begin(request)
    try:
        yield
    finally:
        end()
