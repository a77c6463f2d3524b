"""The pages of the example: home, and a chat that is paid from the person's own wallet."""

import json
from collections.abc import Iterator

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_POST, require_safe

from .answers import Event, answer
from .forms import QuestionForm


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """What this is, and the way in; or who is signed in, and what they have."""
    return render(request, "chat/home.html")


@login_required
def chat(request: HttpRequest) -> HttpResponse:
    """The question form. A browser without JavaScript posts it here and gets the whole answer."""
    form = QuestionForm(request.POST or None)
    exchange = {}
    if form.is_valid():
        exchange["question"] = form.cleaned_data["question"]
        exchange["answer"] = ""
        for kind, data in answer(request.user, exchange["question"]):
            if kind == "delta":
                exchange["answer"] += data["text"]
            else:
                exchange[kind] = data
        form = QuestionForm()
    return render(request, "chat/chat.html", {"form": form, "exchange": exchange})


@login_required
@require_POST
def stream(request: HttpRequest) -> HttpResponseBase:
    """The same answer as server-sent events, as it comes.

    Under ASGI, Django sends a synchronous stream in one piece; there, write this view and
    `answer` as async generators on `django_quota.ai.async_openai_client`.
    """
    form = QuestionForm(request.POST)
    if not form.is_valid():
        return HttpResponse(status=400)
    return StreamingHttpResponse(
        server_sent_events(answer(request.user, form.cleaned_data["question"])),
        content_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


def server_sent_events(events: Iterator[Event]) -> Iterator[str]:
    """Each event in the form that browsers know (the HTML standard, "Server-sent events")."""
    for kind, data in events:
        yield f"event: {kind}\ndata: {json.dumps(data)}\n\n"
