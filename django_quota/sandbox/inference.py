"""The OpenAI-compatible API: GET /v1/models and POST /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse

from .api import json_view, read_json, require_token
from .chat_answer import ChatAnswer
from .chat_request import ChatRequest, read_chat_request
from .pricing import PRICES

__all__ = ["answer_request", "chat_completions", "models"]


@json_view("GET")
def models(request: HttpRequest) -> JsonResponse:
    """List the models, in OpenAI's format."""
    require_token(request, "credits.read")
    listed = [
        {
            "id": name,
            "object": "model",
            "created": 1_735_689_600,
            "owned_by": name.partition("/")[0] if "/" in name else "openai",
        }
        for name in PRICES
    ]
    return JsonResponse({"object": "list", "data": listed})


@json_view("POST")
def chat_completions(request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
    """Answer a chat request, and charge the wallet of the token's user."""
    return answer_request(request, read_chat_request, ChatAnswer)


def answer_request(
    request: HttpRequest,
    read_request: Callable[[dict[str, Any]], ChatRequest],
    answer_class: type[ChatAnswer],
) -> HttpResponse | StreamingHttpResponse:
    """Answer a request in the format of ``answer_class``.

    The most that the answer can cost is reserved first; the charge is for the tokens sent.
    """
    token = require_token(request, "credits.spend")
    chat = read_request(read_json(request))
    answer = answer_class(chat, token.user, token.application)
    answer.reserve()
    if chat.stream:
        return StreamingHttpResponse(
            answer.stream(),
            content_type="text/event-stream",
            headers={"Cache-Control": "no-cache"},
        )
    return JsonResponse(answer.completion(), headers={"Cache-Control": "no-store"})
