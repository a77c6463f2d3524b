"""The project of benchmarks.streams: our view, and beside it a bare proxy in the same project."""

from __future__ import annotations

from functools import cache
from typing import Any

import httpx2
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


urlpatterns = [*ours, path("proxy", proxy)]
