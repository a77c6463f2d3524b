"""`QuotaMiddleware`: `request.quota`, a wallet that can be billed before the view begins, and
states for errors."""

from collections.abc import Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponseBase

from .answers import answer
from .current import CurrentQuota
from .exceptions import ConfigurationError, QuotaError
from .required import arequire_wallet, require_wallet
from .web import user_of

__all__ = ["QuotaMiddleware"]


class QuotaMiddleware:
    """For MIDDLEWARE, after AuthenticationMiddleware. Sync and async: a view that is not marked
    costs no hop to a thread.

    `request.quota` is a `django_quota.current.CurrentQuota`, which asks nothing before it is read.
    Before a view that is marked by `@quota_required`, and outside of its transaction, an expired
    token is renewed: on SQLite, under ATOMIC_REQUESTS, the one place where it can be. Errors of
    this package that a view raises become answers (`django_quota.answers`); what only the
    developer can mend stays an error.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)
            self.process_view: Callable[..., Any] = self._aprocess_view
        else:
            self.process_view = self._process_view

    def __call__(self, request: HttpRequest) -> Any:
        request.quota = CurrentQuota(request)  # type: ignore[attr-defined]
        return self.get_response(request)

    def _process_view(
        self, request: HttpRequest, view: Any, args: Any, kwargs: Any
    ) -> HttpResponseBase | None:
        scopes = getattr(view, "quota_scopes", None)
        if scopes is None:
            return None
        request.quota_checked = scopes  # type: ignore[attr-defined]
        try:
            require_wallet(request.user, scopes)
        except QuotaError as error:
            if (response := self.process_exception(request, error)) is None:
                raise
            return response
        return None

    async def _aprocess_view(
        self, request: HttpRequest, view: Any, args: Any, kwargs: Any
    ) -> HttpResponseBase | None:
        scopes = getattr(view, "quota_scopes", None)
        if scopes is None:
            return None
        request.quota_checked = scopes  # type: ignore[attr-defined]
        try:
            await arequire_wallet(await user_of(request), scopes)
        except QuotaError as error:
            if (response := await sync_to_async(self.process_exception)(request, error)) is None:
                raise
            return response
        return None

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponseBase | None:
        """An answer for an error that is a normal state, None for any other."""
        if not isinstance(error, QuotaError) or isinstance(error, ConfigurationError):
            return None
        return answer(request, error)
