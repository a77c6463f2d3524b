"""A project whose views bill in every way that there is."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.contrib.auth import get_user_model
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path
from django.utils.functional import SimpleLazyObject

from django_quota.ai.factory import async_openai_client, openai_client
from django_quota.decorators import quota_required
from django_quota.exceptions import QuotaError
from django_quota.models import ProviderAccount
from django_quota.tokens.access import aget_access_token, get_access_token
from django_quota.tokens.payer import aget_payer, get_payer
from django_quota.wallet.purchases import create_checkout
from tests.helpers.concurrency import closes_connections
from tests.urls import urlpatterns as ours


def impersonates(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """A middleware that replaces `request.user` only, as that of django-impersonate does."""

    def middleware(request: HttpRequest) -> Any:
        request.impersonator = None
        if request.session.get("_impersonate"):
            request.impersonator = request.user
            request.user = ProviderAccount.objects.get().user
        return get_response(request)

    return middleware


def wraps_the_user(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """A middleware that wraps a lazy `request.user` into another one, as django-hijack's does."""

    def middleware(request: HttpRequest) -> Any:
        user = request.user
        request.user = SimpleLazyObject(lambda: copy.copy(user))  # type: ignore[assignment]
        return get_response(request)

    return middleware


class SyncBackend:
    """An authentication backend without async methods, as django-su's is."""

    def get_user(self, user_id: Any) -> Any:
        return get_user_model().objects.filter(pk=user_id).first()


def agent(request: HttpRequest) -> Any:
    """QUOTA_IMPERSONATION: who acts, in a way of the project's own."""
    return request.headers.get("X-Agent")


async def aagent(request: HttpRequest) -> Any:
    """No plain function."""


def token(request: HttpRequest) -> HttpResponse:
    return HttpResponse(get_access_token(request.user)[:12])


async def atoken(request: HttpRequest) -> HttpResponse:
    return HttpResponse((await aget_access_token(await owner()))[:12])


async def owner() -> Any:
    """Who has a wallet, loaded by the view itself."""
    return (await ProviderAccount.objects.select_related("user").aget()).user


@quota_required
def marked(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"payer": get_payer(request).pk})


@quota_required
async def amarked(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"payer": (await aget_payer(request)).pk})


async def apayer(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"payer": (await aget_payer(request)).pk})


def client(request: HttpRequest) -> HttpResponse:
    key: Any = openai_client(request.user)._api_key_provider
    return HttpResponse(key()[:12])


async def aclient(request: HttpRequest) -> HttpResponse:
    key: Any = async_openai_client(await aget_payer(request))._api_key_provider
    return HttpResponse((await key())[:12])


def threads(request: HttpRequest) -> HttpResponse:
    """A thread that knows nothing of the request but the client."""
    key: Any = openai_client(request.user)._api_key_provider
    with ThreadPoolExecutor(1) as pool:
        return HttpResponse(pool.submit(closes_connections(key)).result()[:12])


async def tasks(request: HttpRequest) -> HttpResponse:
    """A task and a thread of asyncio's own."""
    user = await owner()
    found = await asyncio.create_task(aget_access_token(user))
    await asyncio.to_thread(closes_connections(get_access_token), user)
    return HttpResponse(found[:12])


def late(request: HttpRequest) -> StreamingHttpResponse:
    """Bills while its answer is on its way, when the view is over."""

    def parts() -> Iterator[str]:
        try:
            yield get_access_token(request.user)[:12]
        except QuotaError as error:
            yield error.code

    return StreamingHttpResponse(parts())


async def alate(request: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[str]:
        try:
            yield (await aget_access_token(await owner()))[:12]
        except QuotaError as error:
            yield error.code

    return StreamingHttpResponse(parts())


def buys(request: HttpRequest) -> HttpResponse:
    page = {"success_url": "http://localhost/", "cancel_url": "http://localhost/"}
    return HttpResponse(create_checkout(request.user, "starter", **page))


urlpatterns = [
    *ours,
    *(
        path(view.__name__, view)
        for view in (
            token,
            atoken,
            marked,
            amarked,
            apayer,
            client,
            aclient,
            threads,
            tasks,
            late,
            alate,
            buys,
        )
    ),
]
