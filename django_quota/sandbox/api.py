"""Helpers for the JSON views: errors, request bodies and bearer tokens."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any, TypeVar, cast

from django.core.exceptions import RequestDataTooBig, ValidationError
from django.core.validators import validate_email
from django.http import HttpRequest, JsonResponse
from django.http.request import UnreadablePostError
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt
from oauth2_provider.models import get_access_token_model
from oauth2_provider.utils import parse_bearer_token

from .tokens import checksum

__all__ = [
    "ApiError",
    "bad_request",
    "check_email",
    "json_view",
    "read_bearer_token",
    "read_json",
    "read_text",
    "require_token",
]

DOCS_URL = "https://usequota.ai/docs/errors"
View = TypeVar("View", bound=Callable[..., HttpResponseBase])


class ApiError(Exception):
    """An error that a JSON view returns, in Quota's format.

    ``hint`` says how the client can solve the problem.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        hint: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.hint = hint
        self.headers = headers or {}

    def response(self) -> JsonResponse:
        """Return the error as a response."""
        error = {"code": self.code, "message": self.message}
        if self.hint:
            error["hint"] = self.hint
        error["docs_url"] = f"{DOCS_URL}#{self.code}"
        return JsonResponse({"error": error}, status=self.status, headers=self.headers)


def bad_request(message: str, hint: str = "", code: str = "bad_request") -> ApiError:
    """Return an ApiError with status 400, to be raised."""
    return ApiError(400, code, message, hint)


def json_view(*methods: str) -> Callable[[View], View]:
    """Decorate a view to accept only ``methods`` and to return each ApiError as a response."""

    def decorate(view: View) -> View:
        @functools.wraps(view)
        def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            try:
                if request.method not in methods:
                    allowed = ", ".join(methods)
                    raise ApiError(
                        405,
                        "method_not_allowed",
                        f"This endpoint accepts {allowed} only.",
                        headers={"Allow": allowed},
                    )
                return view(request, *args, **kwargs)
            except ApiError as error:
                return error.response()

        return cast(View, csrf_exempt(wrapper))

    return decorate


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def read_json(request: HttpRequest) -> dict[str, Any]:
    """Return the JSON object in the request body.

    Raises a 400 if there is none, or if it contains invalid Unicode or NUL characters, which some
    databases cannot store.
    """
    hint = "Send a JSON object with Content-Type: application/json."
    try:
        body = request.body
        data = json.loads(body.decode(), parse_constant=_reject_constant)
        text = json.dumps(data, ensure_ascii=False)
        text.encode()
    except (ValueError, RecursionError):
        raise bad_request("The body is not valid JSON.", hint) from None
    except (RequestDataTooBig, UnreadablePostError):
        raise bad_request("The body is too large or incomplete.", hint) from None
    if not isinstance(data, dict):
        raise bad_request("The body must be a JSON object.", hint)
    if _has_nul(data):
        raise bad_request("The body contains a NUL character.")
    return data


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_has_nul(item) for pair in value.items() for item in pair)
    return isinstance(value, list) and any(_has_nul(item) for item in value)


def read_text(data: dict[str, Any], name: str, *, max_length: int = 200) -> str:
    """Return a required, non-empty string field. Raises a 400."""
    value = data.get(name)
    if not isinstance(value, str) or not value.strip() or len(value) > max_length:
        raise bad_request(f"{name} must be a non-empty string of up to {max_length} characters.")
    return value.strip()


def check_email(email: str) -> None:
    """Raise a 400 if this is not an e-mail address."""
    try:
        validate_email(email)
    except ValidationError:
        raise bad_request("This is not an e-mail address.", code="invalid_email") from None


def read_bearer_token(request: HttpRequest) -> str:
    """Return the bearer token of a request. Raises a 401."""
    token: str | None = parse_bearer_token(request.headers.get("Authorization", ""))
    if token is None:
        raise ApiError(
            401,
            "invalid_api_key",
            "The bearer token is missing or malformed.",
            "Send it as Authorization: Bearer <token>.",
            {"WWW-Authenticate": "Bearer"},
        )
    return token


def require_token(request: HttpRequest, *scopes: str) -> Any:
    """Return the AccessToken row of the request's token, which must have all ``scopes``.

    Raises a 401 ``invalid_api_key`` if it is not a user's access token, a 401 ``invalid_token`` if
    it has expired or was revoked, and a 403 ``insufficient_scope`` if a scope is missing.
    """
    value = read_bearer_token(request)
    if not value.startswith("quota_token_"):
        raise ApiError(
            401,
            "invalid_api_key",
            "This bearer token is not a user access token.",
            "Use the access_token that /oauth/token returned; it starts with quota_token_.",
            {"WWW-Authenticate": "Bearer"},
        )
    token = (
        get_access_token_model()
        .objects.select_related("user", "application")
        .filter(token_checksum=checksum(value))
        .first()
    )
    if token is None or token.is_expired():
        raise ApiError(
            401,
            "invalid_token",
            "The access token has expired or was revoked.",
            "Refresh it at /oauth/token, or send the user to sign in again.",
            {"WWW-Authenticate": 'Bearer error="invalid_token"'},
        )
    missing = set(scopes) - set(token.scope.split())
    if missing:
        names = " ".join(sorted(missing))
        raise ApiError(
            403,
            "insufficient_scope",
            f"The access token lacks the scope {names}.",
            f"Send the user through /oauth/authorize again and ask for {names}.",
            {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{names}"'},
        )
    return token
