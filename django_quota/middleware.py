"""`QuotaMiddleware` sets `request.quota`, checks the wallet before a view, and answers errors."""

import logging
from collections.abc import Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponseBase
from django.utils.cache import patch_cache_control, patch_vary_headers

from django_quota.tokens import first_look
from django_quota.tokens.payer import begin, get_payer
from django_quota.web.answers import error_response
from django_quota.web.current import CurrentQuota
from django_quota.web.required import arequire_wallet, require_wallet
from django_quota.web.responses import is_personal

from .exceptions import ConfigurationError, QuotaError, find_quota_error

__all__ = ["QuotaMiddleware"]

logger = logging.getLogger("django_quota.answers")


class QuotaMiddleware:
    """For MIDDLEWARE, after AuthenticationMiddleware. Sync and async: an async view needs no thread
    unless it is decorated with `@quota_required`.

    * It sets `request.quota`, a `django_quota.web.current.CurrentQuota`, which asks the database or
      Quota only when it is read.
    * Before a view with `@quota_required`, it renews an expired token outside of the view's
      transaction. On SQLite with ATOMIC_REQUESTS this is the only place where that is possible.
    * It turns errors of this package that the view raises into responses
      (`django_quota.web.answers`). A ConfigurationError, which only the developer can fix, stays an
      error.
    * While somebody acts as the user, no wallet is billed, however the view gets a token
      (`django_quota.tokens.payer`).
    * It makes a response `private` if `request.quota` was read for a signed-in user, so that no
      cache shows it to others.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)
            self.serve: Callable[..., Any] = self._aserve
            self.process_view: Callable[..., Any] = self._aprocess_view
        else:
            self.serve = self._serve
            self.process_view = self._process_view

    def __call__(self, request: HttpRequest) -> Any:
        request.quota = CurrentQuota(request)  # type: ignore[attr-defined]
        return self.serve(request)

    def _serve(self, request: HttpRequest) -> HttpResponseBase:
        end = begin(request)
        try:
            response = self.get_response(request)
            first_look.forget(request)
            return _end_when_sent(_protect(request, response), end)
        except BaseException:
            end()
            raise

    async def _aserve(self, request: HttpRequest) -> HttpResponseBase:
        end = begin(request)
        try:
            response = await self.get_response(request)
            first_look.forget(request)
            return _end_when_sent(_protect(request, response), end)
        except BaseException:
            end()
            raise

    def _process_view(
        self, request: HttpRequest, view: Any, args: Any, kwargs: Any
    ) -> HttpResponseBase | None:
        scopes = getattr(view, "quota_scopes", None)
        if scopes is None:
            return None
        request.quota_checked = scopes  # type: ignore[attr-defined]
        try:
            require_wallet(get_payer(request), scopes)
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
            await arequire_wallet(request, scopes)
        except QuotaError as error:
            if (response := await sync_to_async(self.process_exception)(request, error)) is None:
                raise
            return response
        return None

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponseBase | None:
        """Return the response to an error of this package, also where an AI framework has wrapped
        it; None for any other error."""
        found = find_quota_error(error)
        if found is None or isinstance(found, ConfigurationError):
            return None
        if found is not error:
            logger.warning("%s was raised because of %s", type(error).__name__, found.code)
        return error_response(request, found)


def _protect(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """Add headers for caches to `response` if it shows data of its user."""
    if is_personal(request):
        patch_vary_headers(response, ["Cookie"])
        patch_cache_control(response, private=True)
    return response


def _end_when_sent(response: HttpResponseBase, end: Callable[[], None]) -> HttpResponseBase:
    """Call `end` now, or after the last part of a stream; return `response`."""
    if response.streaming:
        response._resource_closers.append(end)  # type: ignore[attr-defined]
    else:
        end()
    return response
