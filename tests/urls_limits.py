"""A project whose views call an AI, within a limit."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import path

from django_quota.ai.factory import async_openai_client, openai_client
from django_quota.decorators import quota_required
from django_quota.streaming import stream_response
from django_quota.wallet import spending_limit
from tests.helpers.priced import STREAM, aask, ask
from tests.urls import urlpatterns as ours


class AgentError(Exception):
    """Of an AI framework, which wraps what a call raises."""


@quota_required
def agent(request: HttpRequest) -> HttpResponse:
    """Calls the AI in an endless loop."""
    client = openai_client(request.user)
    try:
        while True:
            ask(client)
    except Exception as error:
        raise AgentError("the agent failed") from error


@quota_required
async def aagent(request: HttpRequest) -> HttpResponse:
    client = async_openai_client(await request.auser())
    while True:
        await aask(client)


@quota_required
def stream(request: HttpRequest) -> HttpResponseBase:
    """Streams an answer; another call passes the limit meanwhile."""
    with spending_limit(credits=1):
        client = openai_client(request.user)
        answer: Any = client.chat.completions.create(**STREAM)
        next(answer)
        ask(client)
    return stream_response(request, answer)


@quota_required
async def astream(request: HttpRequest) -> HttpResponseBase:
    with spending_limit(credits=1):
        client = async_openai_client(await request.auser())
        answer: Any = await client.chat.completions.create(**STREAM)
        await anext(answer)
        await aask(client)
    return stream_response(request, answer)


urlpatterns = [
    *ours,
    path("agent", agent),
    path("aagent", aagent),
    path("stream", stream),
    path("astream", astream),
]
