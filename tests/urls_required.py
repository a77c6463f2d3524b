"""A project whose views bill a wallet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.utils.decorators import async_only_middleware, method_decorator
from django.views import View

from django_quota import exceptions
from django_quota.decorators import quota_required
from django_quota.tokens import access
from tests.urls import urlpatterns as ours

#: Attributes of each request, by the next.
NAMED: dict[str, Any] = {}


@async_only_middleware
def names_the_user(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """A middleware of the project's that knows people in a way of its own."""

    async def middleware(request: HttpRequest) -> Any:
        vars(request).update(NAMED)
        return await get_response(request)

    return middleware


def unmarked(request: HttpRequest) -> HttpResponse:
    """Writes, so that a transaction around it holds SQLite's lock; then asks for the token."""
    User.objects.filter(username=request.user.get_username()).update(last_name="seen")
    return HttpResponse(access.get_access_token(request.user)[:12])


plain = quota_required(unmarked)


@quota_required
async def awaited(request: HttpRequest) -> HttpResponse:
    token = await access.aget_access_token(await request.auser())
    return HttpResponse(token[:12])


@quota_required(scopes=["credits.spend"])
def spends(request: HttpRequest) -> HttpResponse:
    return HttpResponse("spent")


@quota_required(scopes={"credits.spend"})
async def aspends(request: HttpRequest) -> HttpResponse:
    return HttpResponse("spent")


@method_decorator(quota_required, name="dispatch")
class AClass(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("a class")


@method_decorator(quota_required(scopes=["credits.spend"]), name="dispatch")
class Inherited(AClass):
    pass


def raises(request: HttpRequest, name: str) -> HttpResponse:
    """What a view meets in the middle of its work."""
    raise getattr(exceptions, name)("for the log")


def limited(request: HttpRequest) -> HttpResponse:
    raise exceptions.RateLimited("for the log", retry_after=7)


def refused(request: HttpRequest) -> HttpResponse:
    raise exceptions.InsufficientScope("for the log", scope="credits.spend")


async def araises(request: HttpRequest, name: str) -> HttpResponse:
    await sync_to_async(lambda: None)()
    raise getattr(exceptions, name)("for the log")


urlpatterns = [
    *ours,
    path("plain", plain),
    path("unmarked", unmarked),
    path("awaited", awaited),
    path("spends", spends),
    path("aspends", aspends),
    path("class", AClass.as_view()),
    path("inherited", Inherited.as_view()),
    path("stacked", quota_required(spends)),
    path("stacked-the-other-way", quota_required(scopes=["credits.spend"])(plain)),
    path("raises/<name>", raises),
    path("limited", limited),
    path("refused", refused),
    path("araises/<name>", araises),
]
