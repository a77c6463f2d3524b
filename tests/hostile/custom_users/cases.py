"""Signing in with another user model. test_session.py runs this once for each of them."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import SESSION_KEY, get_user_model
from django.test import Client
from pytest_django.fixtures import Settings

from django_quota.models import ProviderAccount
from tests.hostile.conftest import Refused
from tests.hostile.provider import Browser, HostileProvider

pytestmark = [pytest.mark.django_db, pytest.mark.source("Django: AUTH_USER_MODEL")]

User = get_user_model()


def with_email() -> bool:
    return any(field.name == "email" for field in User._meta.get_fields())


def made(**fields: Any) -> Any:
    user = User(**{User.USERNAME_FIELD: "somebody@example.com"} | fields)
    user.set_unusable_password()
    user.save()
    return user


def test_signs_in_and_again(browser: Browser) -> None:
    assert browser.sign_in(next="/?welcome=1")["Location"] == "/?welcome=1"
    user = User._default_manager.get()
    assert browser.client.session[SESSION_KEY] == str(user.pk)
    assert not user.has_usable_password()
    user.clean_fields(exclude=["password"])
    visitor = Browser(Client(SERVER_NAME="localhost"))
    visitor.sign_in()
    assert visitor.client.session[SESSION_KEY] == str(user.pk)
    assert browser.client.post("/auth/quota/logout").status_code == 200


def test_connects_a_wallet(browser: Browser) -> None:
    member = made()
    browser.client.force_login(member, "django.contrib.auth.backends.ModelBackend")
    url = browser.client.post("/auth/quota/connect")["Location"]
    assert browser.come_back(browser.at_provider(url))["Location"] == "/"
    assert ProviderAccount.objects.get().user == member


@pytest.mark.parametrize("link", [False, True])
def test_an_unverified_email_opens_nothing(
    link: bool,
    provider: HostileProvider,
    browser: Browser,
    settings: Settings,
) -> None:
    settings.QUOTA_LINK_BY_EMAIL = link
    ada = made(**{"email": "ada@example.com"} if with_email() else {})
    provider.person["email_verified"] = False
    browser.sign_in()
    assert browser.client.session.get(SESSION_KEY) != str(ada.pk)
    assert not ProviderAccount.objects.filter(user=ada).exists()


def test_no_verified_email(
    provider: HostileProvider,
    browser: Browser,
    refused: Refused,
) -> None:
    provider.person["email_verified"] = False
    answer = browser.sign_in()
    if User.USERNAME_FIELD == "email":
        refused(answer, "email_required", "gave no verified address")
    else:
        assert answer["Location"] == "/"


@pytest.mark.parametrize("link", [False, True])
def test_a_verified_email_that_somebody_has(
    link: bool,
    browser: Browser,
    settings: Settings,
) -> None:
    settings.QUOTA_LINK_BY_EMAIL = link
    ada = made(**{"email": "ada@example.com"} if with_email() else {})
    answer = browser.sign_in()
    linked = ProviderAccount.objects.filter(user=ada).exists()
    assert linked is (link and with_email())
    if User.USERNAME_FIELD == "email" and not link:
        assert "quota_error=account_conflict" in answer["Location"]
    else:
        assert answer["Location"] == "/"
