"""The site of the soak: plain pages, pages with a balance, and calls that the user pays for.

Each call tells the AI who is to pay and which process asks, so that the provider can compare.
"""

from __future__ import annotations

import json
import os
from typing import Any

from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template import engines
from django.urls import include, path

from django_quota.ai.factory import async_openai_client, openai_client
from django_quota.decorators import quota_required
from django_quota.models import UsageRecord
from django_quota.signals import webhook_received
from django_quota.streaming import stream_response
from django_quota.tokens.payer import aget_payer
from django_quota.wallet.usage import arecord_usage, record_usage

BALANCE = engines["django"].from_string(
    "{% load quota %}{{ user.username }} {% quota_balance %} {% quota_buy_credits %}"
)


def note(event: Any, **said: Any) -> None:
    """Receiver: one line, which no other process's line can come between."""
    line = f"{event.event_id} {os.getpid()}\n".encode()
    file = os.open(os.environ["QUOTA_SOAK_HEARD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line)
    finally:
        os.close(file)


webhook_received.connect(note)


def question(user: Any, *, stream: bool) -> dict[str, Any]:
    content = json.dumps({"user": user.username, "pid": os.getpid()})
    return {
        "model": "gpt-4o-mini",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": content}],
        "stream": stream,
    }


@login_required
def plain(request: HttpRequest) -> HttpResponse:
    """Asks the database, and nothing of Quota."""
    user: Any = request.user
    return HttpResponse(f"{user} {UsageRecord.objects.filter(user=user).count()}")


@login_required
def balance(request: HttpRequest) -> HttpResponse:
    return HttpResponse(BALANCE.render({}, request))


@quota_required
def ask(request: HttpRequest) -> HttpResponse:
    """In the transaction of ATOMIC_REQUESTS, with a write of its own after the call."""
    client = openai_client(request.user)
    completion = client.chat.completions.create(**question(request.user, stream=False))
    usage = record_usage(request.user, completion)
    request.session["asked"] = request.session.get("asked", 0) + 1
    return HttpResponse(usage.cost if usage else "")


@transaction.non_atomic_requests
@quota_required
def ask_outside(request: HttpRequest) -> HttpResponse:
    client = openai_client(request.user)
    completion = client.chat.completions.create(**question(request.user, stream=False))
    usage = record_usage(request.user, completion)
    return HttpResponse(usage.cost if usage else "")


@transaction.non_atomic_requests
@quota_required
async def aask(request: HttpRequest) -> HttpResponse:
    user = await aget_payer(request)
    client = async_openai_client(user)
    completion = await client.chat.completions.create(**question(user, stream=False))
    usage = await arecord_usage(user, completion)
    return HttpResponse(usage.cost if usage else "")


@quota_required
def stream(request: HttpRequest) -> HttpResponseBase:
    asked = question(request.user, stream=True)
    return stream_response(request, openai_client(request.user).chat.completions.create(**asked))


@transaction.non_atomic_requests
@quota_required
async def astream(request: HttpRequest) -> HttpResponseBase:
    user = await aget_payer(request)
    asked = question(user, stream=True)
    chunks = await async_openai_client(user).chat.completions.create(**asked)
    return stream_response(request, chunks)


urlpatterns = [
    path("auth/quota/", include("django_quota.urls")),
    path("plain", plain),
    path("balance", balance),
    path("ask", ask),
    path("ask-outside", ask_outside),
    path("aask", aask),
    path("stream", stream),
    path("astream", astream),
    path("", plain),
]
