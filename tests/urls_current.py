"""A project whose views look at `request.quota`."""

from __future__ import annotations

import threading
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template import engines
from django.template.response import TemplateResponse
from django.urls import path
from django.views.decorators.cache import cache_page

from django_quota.decorators import quota_required
from tests.urls import urlpatterns as ours

PAGE = """\
{{ request.quota.connected }} {{ request.quota.account.name }}
{{ request.quota.balance.display }} {{ request.quota.balance_state }}
{{ request.quota.login_url }} {{ request.quota.connect_url }} {{ request.quota.topup_url }}"""


def shown(value: Any) -> Any:
    return getattr(value, "display", None) or getattr(value, "name", value)


def looks(request: HttpRequest) -> JsonResponse:
    """Each twice."""
    names = request.GET.getlist("at") * 2
    return JsonResponse({name: shown(getattr(request.quota, name)) for name in names})


async def alooks(request: HttpRequest) -> JsonResponse:
    names = request.GET.getlist("at") * 2
    return JsonResponse({name: shown(await getattr(request.quota, f"a{name}")()) for name in names})


def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(engines["django"].from_string(PAGE).render({}, request))


async def apage(request: HttpRequest) -> HttpResponse:
    """Known to the template because it was awaited before."""
    for ask in (request.quota.aaccount, request.quota.aconnected, request.quota.abalance):
        await ask()
    return page(request)


def tag(request: HttpRequest) -> HttpResponse:
    template = engines["django"].from_string("{% load quota %}balance: {% quota_balance %}")
    return HttpResponse(template.render({}, request))


def late(request: HttpRequest) -> HttpResponse:
    """Rendered after the view has returned."""
    return TemplateResponse(request, "home.html")


def public(request: HttpRequest) -> HttpResponse:
    return HttpResponse("the same for all")


async def unmarked(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(threading.get_ident()))


urlpatterns = [
    *ours,
    path("looks", looks),
    path("alooks", alooks),
    path("page", page),
    path("apage", apage),
    *(path(f"cached-{view.__name__}", cache_page(60)(view)) for view in (page, tag, late, public)),
    path("tag", tag),
    path("public", public),
    path("unmarked", unmarked),
    path("marked", quota_required(unmarked)),
]
