"""An override that is written to mozilla-django-oidc's documents works here as it does there."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth import SESSION_KEY, get_user_model
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends.db import SessionStore
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.test import Client, RequestFactory
from mozilla_django_oidc.auth import OIDCAuthenticationBackend
from mozilla_django_oidc.views import (
    OIDCAuthenticationCallbackView,
    OIDCAuthenticationRequestView,
    OIDCLogoutView,
)
from pytest_django.fixtures import Settings

from django_quota.backends import QuotaBackend
from django_quota.models import ProviderAccount, QuotaToken
from django_quota.web.sign_in import CallbackView, StartView
from django_quota.web.sign_out import LogoutView
from tests.helpers.browser import Browser
from tests.hostile.provider import CLIENT_ID, CLIENT_SECRET, HostileProvider
from tests.tiny_server import TinyServer

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


class Merging(QuotaBackend):
    """Merges the user of a sign-in into another one."""

    def update_user(self, user: Any, claims: Any) -> Any:
        owner, _created = get_user_model().objects.get_or_create(username="owner")
        ProviderAccount.objects.filter(external_id=claims["sub"]).update(user=owner)
        return owner


class Moving(Merging):
    """Gives the account to another user, and returns the one who had it."""

    def update_user(self, user: Any, claims: Any) -> Any:
        super().update_user(user, claims)
        return user


class Renewing(QuotaBackend):
    """Creates the account anew."""

    def update_user(self, user: Any, claims: Any) -> Any:
        ProviderAccount.objects.filter(external_id=claims["sub"]).delete()
        ProviderAccount.objects.create(user=user, external_id=claims["sub"])
        return user


@pytest.fixture
def browser(settings: Settings) -> Iterator[Browser]:
    with TinyServer() as server:
        settings.QUOTA_BASE_URL = server.origin
        settings.QUOTA_CLIENT_ID, settings.QUOTA_CLIENT_SECRET = CLIENT_ID, CLIENT_SECRET
        HostileProvider(server)
        yield Browser(Client(SERVER_NAME="localhost"))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("known", [False, True], ids=["first sign-in", "later sign-in"])
@pytest.mark.parametrize("backend", [Merging, Renewing])
def test_sign_in_uses_the_account_as_update_user_leaves_it(
    browser: Browser, settings: Settings, backend: Any, known: bool
) -> None:
    if known:
        browser.sign_in()
    settings.AUTHENTICATION_BACKENDS = [f"{__name__}.{backend.__name__}"]

    assert browser.sign_in()["Location"] == "/"

    user = ProviderAccount.objects.get().user
    assert browser.client.session[SESSION_KEY] == str(user.pk)
    assert QuotaToken.objects.for_user(user).count() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("known", [False, True], ids=["first sign-in", "later sign-in"])
def test_user_whose_account_update_user_has_given_away_is_not_signed_in(
    browser: Browser, settings: Settings, known: bool
) -> None:
    if known:
        browser.sign_in()
        browser.client.logout()
    rows = QuotaToken.objects.count()
    settings.AUTHENTICATION_BACKENDS = [f"{__name__}.Moving"]

    assert "quota_error=sign_in_refused" in browser.sign_in()["Location"]

    assert SESSION_KEY not in browser.client.session
    assert QuotaToken.objects.count() == rows
