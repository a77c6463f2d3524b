"""The project of benchmarks.streams: our view, and beside it a bare proxy in the same project."""

from __future__ import annotations

from functools import cache
from typing import Any

import httpx2
from asgiref.sync import sync_to_async
from django.db import connections
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse
from django.urls import path

from django_quota.conf import get_settings
from tests.urls_streaming import ASK
from tests.urls_streaming import urlpatterns as ours


@cache
def client() -> httpx2.AsyncClient:
    return httpx2.AsyncClient(limits=httpx2.Limits(max_connections=1000), timeout=600)


async def proxy(request: HttpRequest) -> HttpResponseBase:
    """Asks with the user's name for a token, and hands the answer on byte for byte."""
    user: Any = await request.auser()
    stream = client().stream(
        "POST",
        f"{get_settings().base_url}/v1/chat/completions",
        json=ASK,
        headers={"Authorization": f"Bearer quota_token_{user.username}"},
    )

    async def parts() -> Any:
        async with stream as reply:
            async for part in reply.aiter_raw():
                yield part

    return StreamingHttpResponse(parts(), content_type="text/event-stream")


async def patient_proxy(request: HttpRequest) -> HttpResponseBase:
    """`proxy` for answers that wait long: first it gives back its connection of the database, which
    Django would keep until the response ends."""
    await request.auser()
    await sync_to_async(connections.close_all)()
    return await proxy(request)


urlpatterns = [*ours, path("proxy", proxy), path("patient-proxy", patient_proxy)]
