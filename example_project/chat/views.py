"""The pages of the example: home, a chat that the person's own wallet pays for, and what it cost.

No error is caught here: QuotaMiddleware answers those of django_quota, with a page that helps or,
for the script, with JSON that says where to go.
"""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.views.decorators.http import require_POST, require_safe

from django_quota.decorators import quota_required
from django_quota.streaming import stream_response
from django_quota.usage import record_usage

from .answers import ask
from .forms import QuestionForm
from .spending import spending


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """What this is, and the way in; or who is signed in, and what they have."""
    return render(request, "chat/home.html")


@quota_required
def chat(request: HttpRequest) -> HttpResponse:
    """The question form. A browser without JavaScript posts it here and gets the whole answer."""
    form = QuestionForm(request.POST or None)
    exchange = {}
    if form.is_valid():
        question = form.cleaned_data["question"]
        completion = ask(request.user, question)
        exchange = {
            "question": question,
            "answer": completion.choices[0].message.content,
            "usage": record_usage(request.user, completion),
        }
        form = QuestionForm()
    return render(request, "chat/chat.html", {"form": form, "exchange": exchange})


@quota_required
@require_POST
def stream(request: HttpRequest) -> HttpResponseBase:
    """The same answer as server-sent events, as it comes; under WSGI and ASGI alike."""
    form = QuestionForm(request.POST)
    if not form.is_valid():
        return HttpResponse(status=400)
    return stream_response(request, ask(request.user, form.cleaned_data["question"], stream=True))


@login_required
@require_safe
def usage(request: HttpRequest) -> HttpResponse:
    """What the person's answers cost, by day, and the last ones."""
    context = {
        "days": spending(request.user),
        "calls": request.user.quota_usage.order_by("-created_at")[:20],
    }
    return render(request, "chat/usage.html", context)
