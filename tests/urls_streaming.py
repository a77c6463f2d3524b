"""A project whose views stream an answer."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponseBase
from django.urls import path

from django_quota.ai.factory import async_openai_client, openai_client
from django_quota.decorators import quota_required
from django_quota.streaming import stream_response
from django_quota.tokens.payer import aget_payer
from tests.urls import urlpatterns as ours

ASK: Any = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "Hello"}],
    "stream": True,
}


@quota_required
def stream(request: HttpRequest) -> HttpResponseBase:
    chunks = openai_client(request.user).chat.completions.create(**ASK)
    return stream_response(request, chunks)


@quota_required
async def astream(request: HttpRequest) -> HttpResponseBase:
    client = async_openai_client(await aget_payer(request))
    return stream_response(request, await client.chat.completions.create(**ASK))


urlpatterns = [*ours, path("stream", stream), path("astream", astream)]
