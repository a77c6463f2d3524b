"""An override that is written to mozilla-django-oidc's documents works here as it does there."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends.db import SessionStore
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.test import RequestFactory
from mozilla_django_oidc.auth import OIDCAuthenticationBackend
from mozilla_django_oidc.views import (
    OIDCAuthenticationCallbackView,
    OIDCAuthenticationRequestView,
    OIDCLogoutView,
)

from django_quota.backends import QuotaBackend
from django_quota.web.sign_in import CallbackView, StartView
from django_quota.web.sign_out import LogoutView

EXTENSION_POINTS = [
    (StartView, OIDCAuthenticationRequestView, "get_extra_params"),
    (CallbackView, OIDCAuthenticationCallbackView, "login_failure"),
    (CallbackView, OIDCAuthenticationCallbackView, "login_success"),
    (QuotaBackend, OIDCAuthenticationBackend, "create_user"),
    (QuotaBackend, OIDCAuthenticationBackend, "filter_users_by_claims"),
    (QuotaBackend, OIDCAuthenticationBackend, "get_username"),
    (QuotaBackend, OIDCAuthenticationBackend, "update_user"),
    (QuotaBackend, OIDCAuthenticationBackend, "verify_claims"),
]
PROPERTIES = [
    (CallbackView, OIDCAuthenticationCallbackView, "failure_url"),
    (CallbackView, OIDCAuthenticationCallbackView, "success_url"),
    (LogoutView, OIDCLogoutView, "redirect_url"),
]


@pytest.mark.parametrize(("ours", "theirs", "name"), EXTENSION_POINTS)
def test_extension_point_takes_what_mozillas_takes(ours: Any, theirs: Any, name: str) -> None:
    expected = list(inspect.signature(getattr(theirs, name)).parameters)

    assert list(inspect.signature(getattr(ours, name)).parameters) == expected


@pytest.mark.parametrize(("ours", "theirs", "name"), PROPERTIES)
def test_extension_point_is_a_property_as_mozillas_is(ours: Any, theirs: Any, name: str) -> None:
    assert isinstance(getattr(theirs, name), property)
    assert isinstance(getattr(ours, name), property)


class Callback(CallbackView):
    """As mozilla-django-oidc documents it."""

    def login_failure(self) -> HttpResponse:
        return HttpResponseRedirect("/sorry")


@pytest.mark.django_db
def test_login_failure_without_arguments_answers_a_failed_sign_in(rf: RequestFactory) -> None:
    request: HttpRequest = rf.get("/auth/quota/callback", {"state": "unknown"})
    request.session, request.user = SessionStore(), AnonymousUser()

    assert Callback.as_view()(request)["Location"] == "/sorry"
