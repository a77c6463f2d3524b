"""Its pages."""

from django.contrib.auth import get_user_model
from django.http import HttpRequest, HttpResponse
from django.urls import include, path

from benchmarks.stopped import work
from django_quota.tokens.access import aget_access_token


def ping(request: HttpRequest) -> HttpResponse:
    return HttpResponse("pong")


def leave(request: HttpRequest, name: str) -> HttpResponse:
    work.leave(name)
    return HttpResponse()


def wait(request: HttpRequest, name: str) -> HttpResponse:
    work.wait(name)
    return HttpResponse()


async def async_wait(request: HttpRequest, name: str) -> HttpResponse:
    await aget_access_token(await get_user_model().objects.aget(username=name))
    return HttpResponse()


urlpatterns = [
    path("auth/quota/", include("django_quota.urls")),
    path("ping", ping),
    path("leave/<name>", leave),
    path("wait/<name>", wait),
    path("async_wait/<name>", async_wait),
]
