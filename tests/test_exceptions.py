"""The error of this package inside the exceptions of an AI framework."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError
from django.http import Http404, HttpResponse, HttpResponseBase
from django.test import RequestFactory
from rest_framework.exceptions import NotFound

from django_quota.exceptions import (
    MAX_WRAPPERS,
    ConfigurationError,
    InsufficientCredits,
    InsufficientScope,
    ProviderUnavailable,
    QuotaError,
    RateLimited,
    RequestRefused,
    find_quota_error,
)
from django_quota.middleware import QuotaMiddleware
from django_quota.oidc.refusals import error_for

EMPTY = InsufficientCredits("the wallet is empty")


class FrameworkError(Exception):
    """Of an AI framework."""


class LiteLLMError(Exception):
    """Of litellm."""

    __module__ = "litellm.exceptions"


def raised(raiser: Callable[[], None]) -> Exception:
    with pytest.raises(Exception) as caught:
        raiser()
    return caught.value


def as_cause() -> None:
    raise FrameworkError("the call failed") from EMPTY


def while_handling() -> None:
    """As litellm does."""
    try:
        raise EMPTY
    except InsufficientCredits:
        raise LiteLLMError("the call failed")  # noqa: B904


def of_a_wrapper() -> None:
    try:
        while_handling()
    except LiteLLMError as error:
        raise RuntimeError("the agent failed") from error


@pytest.mark.parametrize("raiser", [as_cause, while_handling, of_a_wrapper])
def test_wrapped_error_is_found(raiser: Callable[[], None]) -> None:
    assert find_quota_error(raised(raiser)) is EMPTY


def test_error_itself_is_found() -> None:
    assert find_quota_error(EMPTY) is EMPTY


@pytest.mark.parametrize(
    "error", [Http404(), PermissionDenied(), IntegrityError(), ValueError(), FrameworkError()]
)
def test_error_that_was_only_handled_is_not_found(error: Exception) -> None:
    error.__context__ = EMPTY

    assert find_quota_error(error) is None


@pytest.mark.parametrize("error", [Http404(), PermissionDenied(), NotFound()])
def test_exception_that_the_project_raised_on_purpose_is_not_looked_through(
    error: Exception,
) -> None:
    error.__cause__ = EMPTY

    assert find_quota_error(error) is None


def test_context_that_is_hidden_is_not_found() -> None:
    error = LiteLLMError()
    error.__context__ = EMPTY
    error.__suppress_context__ = True

    assert find_quota_error(error) is None


def test_circle_of_causes_ends() -> None:
    first, second = FrameworkError(), FrameworkError()
    first.__cause__, second.__cause__ = second, first

    assert find_quota_error(first) is None


def test_chain_that_is_too_long_ends() -> None:
    error: BaseException = EMPTY
    for _wrapper in range(MAX_WRAPPERS):
        outer = FrameworkError()
        outer.__cause__ = error
        error = outer

    assert find_quota_error(error) is None


def respond(error: Exception) -> HttpResponseBase | None:
    request = RequestFactory().get("/ask")
    request.user, request.session = AnonymousUser(), {}  # type: ignore[assignment]
    return QuotaMiddleware(HttpResponse).process_exception(request, error)


@pytest.mark.django_db
def test_middleware_answers_a_wrapped_error_as_the_error_itself() -> None:
    response = respond(raised(as_cause))

    assert response is not None and response.status_code == 402


def test_middleware_leaves_a_wrapped_mistake_of_the_developer_alone() -> None:
    error = FrameworkError()
    error.__cause__ = ConfigurationError("QUOTA_CLIENT_ID is missing")

    assert respond(error) is None


def test_middleware_leaves_a_foreign_error_alone() -> None:
    assert respond(FrameworkError()) is None


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (None, "", ProviderUnavailable),
        (200, "", ProviderUnavailable),
        (302, "", ProviderUnavailable),
        (400, "bad_request", RequestRefused),
        (401, "invalid_token", RequestRefused),
        (402, "", InsufficientCredits),
        (403, "insufficient_scope", InsufficientScope),
        (403, "forbidden", RequestRefused),
        (404, "", RequestRefused),
        (429, "", RateLimited),
        (500, "insufficient_scope", ProviderUnavailable),
    ],
)
def test_error_for_a_status_is_that_of_the_table(
    status: int | None, code: str, expected: type[QuotaError]
) -> None:
    assert type(error_for(status, code, None)) is expected


def test_error_for_a_rate_limit_says_when_to_try_again() -> None:
    assert error_for(429, "", 7).retry_after == 7


def test_error_for_a_refusal_keeps_quotas_code() -> None:
    assert error_for(400, "bad_request", None).provider_code == "bad_request"


def test_error_for_a_missing_scope_names_it() -> None:
    error = error_for(403, "insufficient_scope", None, scope="credits.spend")
    assert isinstance(error, InsufficientScope)
    assert error.scope == "credits.spend"
