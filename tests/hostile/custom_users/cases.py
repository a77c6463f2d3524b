"""Signing in with another user model. test_users.py runs this once for each of them."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.contrib.auth import SESSION_KEY, get_user_model
from django.db.models import EmailField
from django.test import Client
from pytest_django.fixtures import Settings

from django_quota import checks
from django_quota.models import ProviderAccount
from tests.helpers.browser import Browser
from tests.hostile.conftest import Refused
from tests.hostile.provider import HostileProvider

pytestmark = [pytest.mark.django_db, pytest.mark.source("Django: AUTH_USER_MODEL")]

User = get_user_model()


#: Where this model keeps the address, "" if it has none.
EMAIL_FIELDS = [field for field in User._meta.fields if isinstance(field, EmailField)]
COLUMN = next((f for f in EMAIL_FIELDS if f.name == User.get_email_field_name()), None) or next(
    iter(EMAIL_FIELDS), None
)
EMAIL = COLUMN.name if COLUMN else ""
#: Each user has an address of their own.
NEEDS_EMAIL = COLUMN is not None and COLUMN.unique and not COLUMN.null
#: Users of this model cannot be made without the project's help.
NOT_OURS_TO_MAKE = User.__name__ in ("NumberedUser", "IntegerUser")
#: A username that is an address, which we cannot make up.
NO_ADDRESS = ["login"] if User.__name__ == "TwoEmailsUser" else []
ours_to_make = pytest.mark.skipif(NOT_OURS_TO_MAKE, reason="a user that we could not make up")


def made(email: str = "", **fields: Any) -> Any:
    made_up = {"NumberedUser": uuid.uuid4(), "IntegerUser": 7}
    name = made_up.get(User.__name__, "somebody@example.com")
    own = {EMAIL: email or "somebody@example.com"} if EMAIL else {}
    user = User(**{User.USERNAME_FIELD: name} | own | fields)
    user.set_unusable_password()
    user.save()
    return user


@ours_to_make
def test_signs_in_and_again(browser: Browser) -> None:
    assert browser.sign_in(next="/?welcome=1")["Location"] == "/?welcome=1"
    user = User._default_manager.get()
    assert browser.client.session[SESSION_KEY] == str(user.pk)
    assert not user.has_usable_password()
    user.clean_fields(exclude=["password", *NO_ADDRESS])
    if EMAIL:
        assert getattr(user, EMAIL) == "ada@example.com"
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
    ada = made("ada@example.com")
    provider.person["email_verified"] = False
    browser.sign_in()
    assert browser.client.session.get(SESSION_KEY) != str(ada.pk)
    assert not ProviderAccount.objects.filter(user=ada).exists()


@ours_to_make
def test_no_verified_email(
    provider: HostileProvider,
    browser: Browser,
    refused: Refused,
) -> None:
    provider.person["email_verified"] = False
    answer = browser.sign_in()
    if NEEDS_EMAIL:
        refused(answer, "email_required", "gave no verified one")
        return
    assert answer["Location"] == "/"
    provider.person |= {"sub": "another", "email": "bob@example.com"}
    assert Browser(Client(SERVER_NAME="localhost")).sign_in()["Location"] == "/"
    assert ProviderAccount.objects.count() == 2


@ours_to_make
@pytest.mark.parametrize("link", [False, True])
def test_a_verified_email_that_somebody_has(
    link: bool,
    browser: Browser,
    settings: Settings,
) -> None:
    settings.QUOTA_LINK_BY_EMAIL = link
    ada = made("ada@example.com")
    answer = browser.sign_in()
    linked = ProviderAccount.objects.filter(user=ada).exists()
    assert linked is (link and bool(EMAIL))
    if EMAIL and not link:
        assert "quota_error=email_known" in answer["Location"]
    else:
        assert answer["Location"] == "/"


def test_staff_are_not_linked(browser: Browser, settings: Settings) -> None:
    settings.QUOTA_LINK_BY_EMAIL = True
    if not hasattr(User, "is_staff"):
        pytest.skip("has no staff")
    admin = made("ada@example.com", is_admin=True)
    admin.set_password("correct horse")
    admin.save()
    assert "quota_error=email_known" in browser.sign_in()["Location"]
    admin.refresh_from_db()
    assert admin.has_usable_password()
    assert not ProviderAccount.objects.exists()


def test_check_names_a_username_that_is_not_ours_to_make() -> None:
    ids = {message.id for message in checks.check_installation()}
    assert ("django_quota.W011" in ids) == NOT_OURS_TO_MAKE
    assert ("django_quota.W012" in ids) == bool(NO_ADDRESS)


@pytest.mark.skipif(not NOT_OURS_TO_MAKE, reason="users can be made")
def test_a_username_that_does_not_fit(browser: Browser, refused: Refused) -> None:
    refused(browser.sign_in(), "account_conflict", "override QuotaBackend.create_user")
