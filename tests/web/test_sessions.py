"""The session of a sign-in: a new key, written once, and what projects do to it meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from django.contrib import auth
from django.contrib.auth import SESSION_KEY, get_user_model
from django.contrib.auth.signals import user_logged_in
from django.contrib.sessions.backends import db
from django.contrib.sessions.models import Session
from django.db import DatabaseError
from django.http import HttpResponseRedirect
from django.test import Client
from pytest_django.fixtures import Settings

from django_quota.signals import signed_in
from django_quota.web import sessions
from django_quota.web.sign_in import CallbackView
from tests.helpers.browser import Browser
from tests.hostile.provider import CLIENT_ID, CLIENT_SECRET, HostileProvider
from tests.tiny_server import TinyServer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def browser(settings: Settings) -> Iterator[Browser]:
    with TinyServer() as server:
        settings.QUOTA_BASE_URL = server.origin
        settings.QUOTA_CLIENT_ID = CLIENT_ID
        settings.QUOTA_CLIENT_SECRET = CLIENT_SECRET
        HostileProvider(server)
        yield Browser(Client(SERVER_NAME="localhost"))


@pytest.fixture
def logged_in() -> Iterator[list[Any]]:
    """Receivers of `user_logged_in` to add, for a test."""
    added: list[Any] = []

    def receiver(**kwargs: Any) -> None:
        for each in added:
            each(kwargs["request"], kwargs["user"])

    user_logged_in.connect(receiver)
    yield added
    user_logged_in.disconnect(receiver)


def test_receiver_of_user_logged_in_finds_the_session_stored(
    browser: Browser, logged_in: list[Any]
) -> None:
    """Projects list the sessions of a user in a table with a foreign key to the session."""
    found: list[int] = []

    def look(request: Any, user: Any) -> None:
        found.append(Session.objects.filter(pk=request.session.session_key).count())

    logged_in.append(look)
    browser.sign_in()
    assert found == [1]


def end_sessions_of(request: Any, user: Any) -> None:
    for session in Session.objects.all():
        if session.get_decoded().get(SESSION_KEY) == str(user.pk):
            session.delete()


def test_receiver_that_ends_all_sessions_of_the_user_leaves_the_new_one(
    browser: Browser, logged_in: list[Any]
) -> None:
    """After `auth.login` alone, the stored session has no user yet either."""
    logged_in.append(end_sessions_of)
    for _again in range(2):
        assert browser.sign_in()["Location"] == "/"
        assert browser.client.session[SESSION_KEY]


def fail(request: Any, user: Any) -> None:
    raise DatabaseError("the disk is full")


@pytest.mark.parametrize("engine", ["db", "cached_db"])
def test_nobody_is_signed_in_if_a_receiver_fails_in_the_database(
    browser: Browser, settings: Settings, logged_in: list[Any], engine: str
) -> None:
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
    settings.SESSION_SAVE_EVERY_REQUEST = True  # so that the browser gets the new key
    logged_in.append(fail)
    assert "quota_error=provider_unavailable" in browser.sign_in()["Location"]
    assert SESSION_KEY not in browser.client.session


@pytest.mark.parametrize("signal", ["user_logged_in", "signed_in"])
def test_what_a_receiver_writes_into_the_session_is_stored(
    browser: Browser, logged_in: list[Any], signal: str
) -> None:
    def write(request: Any, user: Any = None, **kwargs: Any) -> None:
        request.session.setdefault("carts", []).append(signal)  # Django does not see this change

    def receiver(**kwargs: Any) -> None:
        write(kwargs["request"])

    if signal == "user_logged_in":
        logged_in.append(write)
    else:
        signed_in.connect(receiver)
    try:
        browser.sign_in()
    finally:
        signed_in.disconnect(receiver)
    assert browser.client.session["carts"] == [signal]


def test_what_a_middleware_writes_after_the_view_is_stored(
    browser: Browser, settings: Settings
) -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.writing_late"]
    browser.sign_in()
    assert browser.client.session["late"] is True


def writing_late(get_response: Any) -> Any:
    def middleware(request: Any) -> Any:
        response = get_response(request)
        request.session["late"] = True
        return response

    return middleware


@pytest.mark.parametrize("engine", ["cache", "cached_db", "file", "signed_cookies"])
def test_other_session_engines_keep_the_data_and_change_the_key(
    browser: Browser, settings: Settings, engine: str, tmp_path: Any
) -> None:
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
    settings.SESSION_FILE_PATH = str(tmp_path)
    session = browser.client.session
    session["cart"] = "full"
    session.save()
    before = str(session.session_key)
    browser.client.cookies["sessionid"] = before

    for _again in range(2):
        assert browser.sign_in()["Location"] == "/"
        key = str(browser.client.cookies["sessionid"].value)
        assert key != before
        assert browser.client.session["cart"] == "full"
        assert browser.client.session[SESSION_KEY] == str(get_user_model().objects.get().pk)
        if engine != "signed_cookies":
            assert not browser.client.session.exists(before)
        before = key


def test_session_in_the_cache_may_hold_what_the_serializer_does_not_know(
    browser: Browser, settings: Settings, logged_in: list[Any]
) -> None:
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.listing_the_cart"]
    held = {"since": date(2026, 1, 1), "cart": (1,)}
    logged_in.append(lambda request, user: request.session.update(held))

    assert browser.sign_in()["Location"] == "/"

    assert browser.client.session["since"] == date(2026, 1, 1)
    assert browser.client.session["cart"] == [1]  # in JSON there is no difference


def listing_the_cart(get_response: Any) -> Any:
    def middleware(request: Any) -> Any:
        response = get_response(request)
        if "cart" in request.session:
            request.session["cart"] = list(request.session["cart"])
        return response

    return middleware


def test_session_store_of_the_project_changes_the_key_in_its_own_way() -> None:
    class Store(db.SessionStore):
        cycled = False

        @classmethod
        def get_model_class(cls) -> Any:
            return Session

        def cycle_key(self) -> None:
            self.cycled = True

    session = Store()
    sessions.renew_key(session)
    assert session.cycled


def test_key_that_is_taken_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = db.SessionStore()
    taken["whose"] = "another's"
    taken.save()
    keys = iter([str(taken.session_key), "f" * 32])
    monkeypatch.setattr(sessions, "get_random_string", lambda *arguments: next(keys))
    session = db.SessionStore()
    session["whose"] = "mine"

    sessions.renew_key(session)

    assert session.session_key == "f" * 32
    assert db.SessionStore(taken.session_key)["whose"] == "another's"
    assert db.SessionStore("f" * 32)["whose"] == "mine"


def test_password_changed_since_the_last_sign_in_leaves_nothing_of_the_old_session(
    browser: Browser,
) -> None:
    """As in `auth.login`: who is in that session need not be this person."""
    browser.sign_in()
    session = browser.client.session
    session["cart"] = "another's"
    session.save()
    user = get_user_model().objects.get()
    user.set_unusable_password()
    user.save()

    browser.sign_in()

    assert "cart" not in browser.client.session
    assert Session.objects.count() == 1


def test_login_success_of_the_project_still_notes_where_the_sign_in_led(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An override as mozilla-django-oidc documents it knows nothing of this note."""

    def login_success(self: CallbackView) -> HttpResponseRedirect:
        auth.login(self.request, self.user)
        return HttpResponseRedirect(self.success_url)

    monkeypatch.setattr(CallbackView, "login_success", login_success)
    back = browser.at_provider(browser.start(next="/?welcome=1"))

    assert browser.come_back(back)["Location"] == "/?welcome=1"

    assert browser.client.session[SESSION_KEY]
    assert browser.come_back(back)["Location"] == "/?welcome=1"  # the back button
