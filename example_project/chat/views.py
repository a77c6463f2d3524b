"""The pages of the example: home, and a chat that the user's own wallet pays for.

No error is caught here. QuotaMiddleware turns those of django_quota into a page that helps or, for
the script, into JSON that says where to go.
"""

from contextlib import closing

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST, require_safe

from django_quota.decorators import quota_required
from django_quota.streaming import stream_response

from .ai_models import model_names
from .answers import Answer
from .forms import QuestionForm
from .models import Exchange, conversation
from .notes import with_notes


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """The sign-in link, or the user's account and balance."""
    return render(request, "chat/home.html")


@quota_required
def chat(request: HttpRequest) -> HttpResponse:
    """The conversation. A browser without JavaScript posts a question here and gets the answer
    whole.

    A paid POST redirects, so that reloading the page does not pay again.
    """
    exchanges = conversation(request.user)
    initial = (
        {"model": exchanges[-1].model, "max_tokens": exchanges[-1].max_tokens} if exchanges else {}
    )
    form = QuestionForm(request.POST or None, models=model_names(request.user), initial=initial)
    if form.is_valid():
        with closing(_answer(request, form)) as answer:
            for _ in answer:
                pass
        return redirect("chat:chat")
    return render(request, "chat/chat.html", {"form": form, "exchanges": exchanges})


@quota_required
@require_POST
def stream(request: HttpRequest) -> HttpResponseBase:
    """The same answer as server-sent events, word by word, under WSGI and ASGI."""
    form = QuestionForm(request.POST, models=model_names(request.user))
    if not form.is_valid():
        return HttpResponse(status=400)
    answer = _answer(request, form)
    response = stream_response(request, answer)
    response.streaming_content = with_notes(response.streaming_content, answer)
    return response


def _answer(request: HttpRequest, form: QuestionForm) -> Answer:
    fields = {name: form.cleaned_data[name] for name in ("question", "model", "max_tokens")}
    exchange = Exchange(user=request.user, **fields)
    return Answer(exchange, may_look_up=form.cleaned_data["may_look_up"])


@quota_required
@require_POST
def new(request: HttpRequest) -> HttpResponse:
    """Forget the conversation, and begin another one."""
    Exchange.objects.filter(user=request.user).delete()
    return redirect("chat:chat")
