"""The pages of the example: home, a chat that the user's own wallet pays for, and their spending.

No error is caught here. QuotaMiddleware turns those of django_quota into a page that helps or, for
the script, into JSON that says where to go.
"""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST, require_safe

from django_quota.decorators import quota_required
from django_quota.streaming import stream_response
from django_quota.wallet import record_usage

from .answers import ask
from .forms import QuestionForm
from .spending import spending


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """The sign-in link, or the user's account and balance."""
    return render(request, "chat/home.html")


@quota_required
def chat(request: HttpRequest) -> HttpResponse:
    """The question form. A browser without JavaScript posts it here and gets the whole answer.

    A paid POST redirects, so that reloading the page does not pay again.
    """
    form = QuestionForm(request.POST or None)
    if form.is_valid():
        question = form.cleaned_data["question"]
        completion = ask(request.user, question)
        usage = record_usage(request.user, completion)
        request.session["exchange"] = {
            "question": question,
            "answer": completion.choices[0].message.content,
            "cost": usage.cost if usage else "",
        }
        return redirect("chat:chat")
    context = {"form": form, "exchange": request.session.get("exchange")}
    return render(request, "chat/chat.html", context)


@quota_required
@require_POST
def stream(request: HttpRequest) -> HttpResponseBase:
    """The same answer as server-sent events, word by word, under WSGI and ASGI."""
    form = QuestionForm(request.POST)
    if not form.is_valid():
        return HttpResponse(status=400)
    return stream_response(request, ask(request.user, form.cleaned_data["question"], stream=True))


@login_required
@require_safe
def usage(request: HttpRequest) -> HttpResponse:
    """The user's spending by day, and their last calls."""
    context = {
        "days": spending(request.user),
        "calls": request.user.quota_usage.order_by("-created_at")[:20],
    }
    return render(request, "chat/usage.html", context)
