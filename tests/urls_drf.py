"""A project with an API by Django REST framework that bills a wallet."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.urls import path
from rest_framework.exceptions import ValidationError
from rest_framework.permissions import IsAdminUser
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.views import exception_handler as drf_exception_handler

from django_quota import exceptions
from django_quota.contrib.drf import HasQuotaWallet, WalletDenied
from django_quota.contrib.drf import exception_handler as quota_exception_handler
from tests.urls import urlpatterns as ours


class Plain(APIView):  # type: ignore[misc]
    permission_classes = [HasQuotaWallet]

    def get(self, request: Any) -> Response:
        return Response({"user": request.user.pk})

    def post(self, request: Any) -> Response:
        return Response({"user": request.user.pk})


class Spends(Plain):
    quota_scopes = ["credits.spend"]


class AdminOr(Plain):
    permission_classes = [IsAdminUser | HasQuotaWallet]


class Raises(APIView):  # type: ignore[misc]
    """Writes, then meets what a view may meet in the middle of its work."""

    def get(self, request: Any, name: str) -> Response:
        User.objects.filter(pk=request.user.pk).update(last_name="seen")
        if name == "ValidationError":
            raise ValidationError("of DRF's own")
        if name == "ZeroDivisionError":
            raise ZeroDivisionError
        if name == "RateLimited":
            raise exceptions.RateLimited("for the log", retry_after=7)
        raise getattr(exceptions, name)("for the log")


def ours_first(exc: Exception, context: dict[str, Any]) -> Response | None:
    """A project's handler, as in docs/scripts.rst."""
    response = quota_exception_handler(exc, context)
    if response is not None:
        response.headers["X-Api-Version"] = "2"
    return response


def drfs_first(exc: Exception, context: dict[str, Any]) -> Response | None:
    """A project's handler that asks ours for what DRF leaves."""
    return drf_exception_handler(exc, context) or quota_exception_handler(exc, context)


def theirs_for_the_rest(exc: Exception, context: dict[str, Any]) -> Response | None:
    """A project's handler that gives ours only what is ours, as in docs/scripts.rst."""
    if isinstance(exc, (exceptions.QuotaError, WalletDenied)):
        return quota_exception_handler(exc, context)
    return Response({"theirs": type(exc).__name__}, status=418)


urlpatterns = [
    *ours,
    path("plain", Plain.as_view()),
    path("not-atomic", transaction.non_atomic_requests(Plain.as_view())),
    path("spends", Spends.as_view()),
    path("admin-or", AdminOr.as_view()),
    path("raises/<name>", Raises.as_view()),
]
